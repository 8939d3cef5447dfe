//! The remote-shell agent: a program in the launcher that starts commands in the workers through the API server.
//!
//! It is the program `muster` under another name. On a real cluster an init container copies it from the
//! operator's image into a volume of the launcher; Muster's own nodes have it on the path of every pod.
//! The launcher gets an account that may `exec` into this job's pods and do nothing else.

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, PodSpec, ServiceAccount, Volume, VolumeMount,
};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};

use super::configuration;
use super::framework::WORKER;
use super::job::{MpiJob, RemoteShell};
use crate::companion::Companion;

const VOLUME: &str = "muster-mpi-agent";
const FOLDER: &str = "/run/muster/mpi";
const NAME: &str = "muster-mpi-agent";
/// Variable of the agent: in which namespace the workers are.
pub(super) const NAMESPACE: &str = "MUSTER_MPI_NAMESPACE";
/// Variable of the agent: in which of a worker's containers to start commands.
pub(super) const CONTAINER: &str = "MUSTER_MPI_CONTAINER";

/// Where pods get the agent from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentSource {
    /// An image with the program `muster`, which an init container copies.
    Image(String),
    /// The path of every pod has it: the node is Muster's own.
    OnPath,
}

impl AgentSource {
    /// How the launcher starts the agent.
    pub(super) fn program(&self) -> String {
        match self {
            Self::Image(_) => format!("{FOLDER}/{NAME}"),
            Self::OnPath => NAME.to_owned(),
        }
    }
}

impl MpiJob {
    /// The container in which the workers run the program.
    pub(super) fn worker_container(&self) -> String {
        let name = self.job.replica(WORKER).and_then(|worker| {
            let containers = &worker.template.spec.as_ref()?.containers;
            Some(containers.get(self.main_container(&worker.template))?.name.clone())
        });
        name.unwrap_or_default()
    }

    /// The account of the launcher: its own, or the one that its template names.
    fn launcher_account(&self) -> String {
        let named = self.launcher().and_then(|launcher| {
            launcher.template.spec.as_ref()?.service_account_name.clone().filter(|name| !name.is_empty())
        });
        named.unwrap_or_else(|| self.launcher_name())
    }

    /// Who the launcher is to the API server, and what it may do there.
    pub(super) fn launcher_rights(&self) -> Vec<Companion> {
        if self.remote_shell != RemoteShell::Agent {
            return Vec::new();
        }
        let (name, account) = (self.launcher_name(), self.launcher_account());
        let metadata = self.metadata(name.clone(), self.labels());
        let rule = |resource: &str, verbs: &[&str]| PolicyRule {
            api_groups: Some(vec![String::new()]),
            resources: Some(vec![resource.to_owned()]),
            resource_names: Some((0..self.workers()).map(|index| self.worker_name(index)).collect()),
            verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
            ..PolicyRule::default()
        };
        // A rule without names would hold for every pod. A WebSocket begins with a GET.
        let rules = match self.workers() {
            0 => Vec::new(),
            _ => vec![rule("pods", &["get"]), rule("pods/exec", &["create", "get"])],
        };
        let role = Role { metadata: metadata.clone(), rules: Some(rules) };
        let binding = RoleBinding {
            metadata: metadata.clone(),
            role_ref: RoleRef {
                api_group: Some("rbac.authorization.k8s.io".to_owned()),
                kind: "Role".to_owned(),
                name: name.clone(),
            },
            subjects: Some(vec![Subject {
                kind: "ServiceAccount".to_owned(),
                name: account.clone(),
                namespace: Some(self.job.namespace().to_owned()),
                ..Subject::default()
            }]),
        };
        let mut companions = vec![Companion::Role(role), Companion::RoleBinding(binding)];
        if account == name {
            companions.insert(
                0,
                Companion::ServiceAccount(ServiceAccount { metadata, ..ServiceAccount::default() }),
            );
        }
        companions
    }

    /// Brings the agent into the launcher, where it starts processes by it, and has it wait for the workers first.
    pub(super) fn bring_agent(&self, spec: &mut PodSpec, main: usize, source: &AgentSource) {
        let program = source.program();
        let mut first = Vec::new();
        let (mounts, image) = match source {
            AgentSource::Image(image) => {
                let mount = VolumeMount {
                    name: VOLUME.to_owned(),
                    mount_path: FOLDER.to_owned(),
                    ..VolumeMount::default()
                };
                let install = ["muster", "mpi-agent", "install", program.as_str()];
                first.push(Container {
                    name: NAME.to_owned(),
                    image: Some(image.clone()),
                    command: Some(install.map(str::to_owned).to_vec()),
                    volume_mounts: Some(vec![mount.clone()]),
                    ..Container::default()
                });
                spec.volumes.get_or_insert_default().push(Volume {
                    name: VOLUME.to_owned(),
                    empty_dir: Some(EmptyDirVolumeSource::default()),
                    ..Volume::default()
                });
                (vec![VolumeMount { read_only: Some(true), ..mount }], Some(image.clone()))
            }
            AgentSource::OnPath => {
                (Vec::new(), spec.containers.get(main).and_then(|container| container.image.clone()))
            }
        };
        let mut wait = vec![program, "wait".to_owned()];
        wait.extend(["--hostfile".to_owned(), format!("{}/hostfile", configuration::FOLDER)]);
        wait.extend(self.ssh_port().into_iter().flat_map(|port| ["--port".to_owned(), port.to_string()]));
        let own = self.launcher_is_worker.then(|| ["--except".to_owned(), self.launcher_name()]);
        wait.extend(own.into_iter().flatten());
        first.push(Container {
            name: "wait-for-workers".to_owned(),
            image,
            command: Some(wait),
            volume_mounts: Some(mounts.iter().cloned().chain([configuration::mount()]).collect()),
            ..Container::default()
        });
        let init_containers = spec.init_containers.get_or_insert_default();
        init_containers.extend(first);
        if self.remote_shell == RemoteShell::Agent {
            if let Some(container) = spec.containers.get_mut(main) {
                container.volume_mounts.get_or_insert_default().extend(mounts);
            }
            spec.service_account_name = Some(self.launcher_account());
            spec.automount_service_account_token = Some(true);
        }
    }
}
