//! An MPI job as the rules see it: of either version, checked, with every default filled in.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_trainer_api::{
    LauncherCreationPolicy, MpiImplementation, MpiJob as Object, ReplicaSpec, RestartPolicy,
    SchedulingPolicy, annotation,
};

use super::framework::{KIND, LAUNCHER, Mpi, WORKER};
use super::validation;
use crate::job::{Job, Replica, RestartScope};
use crate::kind::ReplicaType;
use crate::validation::{FieldError, normalise};

/// Volcano's own way to name a queue.
const VOLCANO_QUEUE: &str = "scheduling.volcano.sh/queue-name";

/// Which operator's customs a job follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The training operator's, `kubeflow.org/v1`.
    V1,
    /// The MPI operator's, `kubeflow.org/v2beta1`.
    V2,
}

/// Whose `mpirun` the launcher runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Implementation {
    /// Open MPI.
    OpenMpi,
    /// Intel MPI.
    Intel,
    /// MPICH.
    Mpich,
}

/// How `mpirun` starts processes on the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteShell {
    /// Each worker runs an SSH server.
    Sshd,
    /// Muster's agent starts them through the API server; the worker's image needs nothing.
    Agent,
}

impl RemoteShell {
    /// Reads the annotation `muster.dev/remote-shell`.
    pub(super) fn parse(value: &str) -> Option<Self> {
        match value {
            "sshd" => Some(Self::Sshd),
            "agent" => Some(Self::Agent),
            _ => None,
        }
    }

    /// As the annotation has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Sshd => "sshd",
            Self::Agent => "agent",
        }
    }
}

/// When the launcher is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LauncherCreation {
    /// With the workers.
    AtStartup,
    /// Once all workers are ready.
    WorkersReady,
}

/// A valid MPI job.
#[derive(Debug, Clone)]
pub struct MpiJob {
    /// What it has in common with every training job.
    pub job: Job,
    /// Whose customs it follows.
    pub dialect: Dialect,
    /// Processes per worker in the hostfile.
    pub slots_per_worker: i32,
    /// Whether the launcher is the first host.
    pub launcher_is_worker: bool,
    /// Folder of the SSH keys in its pods.
    pub ssh_folder: String,
    /// When the launcher is created.
    pub creation: LauncherCreation,
    /// Whose `mpirun` the launcher runs.
    pub implementation: Implementation,
    /// How that starts processes on the workers.
    pub remote_shell: RemoteShell,
    /// Whether it starts anew when the cluster takes its launcher or evicts a worker.
    pub requeue: bool,
    /// Container that runs the program, where the job names one.
    pub main_container: Option<String>,
}

/// Checks a job and fills in its defaults.
pub fn job(object: &Object) -> Result<MpiJob, Vec<FieldError>> {
    let spec = &object.spec;
    let dialect = if spec.is_v2() { Dialect::V2 } else { Dialect::V1 };
    let mut errors = Vec::new();
    let replica_specs = normalise(&KIND, &spec.mpi_replica_specs, &mut errors);
    validation::validate(dialect, &object.metadata, spec, &replica_specs, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut run_policy = spec.run_policy.clone();
    run_policy.clean_pod_policy = spec.clean_pod_policy.clone().or(run_policy.clean_pod_policy);
    let creation = match spec.launcher_creation_policy {
        Some(LauncherCreationPolicy::WaitForWorkersReady) => LauncherCreation::WorkersReady,
        _ => LauncherCreation::AtStartup,
    };
    let policy = run_policy.scheduling_policy.get_or_insert_default();
    complete_scheduling(policy, &object.metadata, &replica_specs, creation);
    let annotation = |name: &str| object.metadata.annotations.as_ref()?.get(name).map(String::as_str);
    let customary = match dialect {
        Dialect::V1 => RemoteShell::Agent,
        Dialect::V2 => RemoteShell::Sshd,
    };
    Ok(MpiJob {
        job: Job {
            kind: &KIND,
            framework: Arc::new(Mpi),
            metadata: object.metadata.clone(),
            replicas: replicas(dialect, &replica_specs),
            run_policy,
            status: object.status.clone().unwrap_or_default(),
        },
        dialect,
        slots_per_worker: spec.slots_per_worker.unwrap_or(1),
        launcher_is_worker: spec.run_launcher_as_worker.unwrap_or(false),
        ssh_folder: spec.ssh_auth_mount_path.clone().unwrap_or_else(|| "/root/.ssh".to_owned()),
        creation,
        implementation: match spec.mpi_implementation {
            Some(MpiImplementation::Intel) => Implementation::Intel,
            Some(MpiImplementation::Mpich) => Implementation::Mpich,
            _ => Implementation::OpenMpi,
        },
        remote_shell: annotation(annotation::REMOTE_SHELL).and_then(RemoteShell::parse).unwrap_or(customary),
        requeue: annotation(annotation::REQUEUE) == Some("true"),
        main_container: spec.main_container.clone(),
    })
}

/// Reads, checks and completes a job as the API server holds it.
pub fn read(object: serde_json::Value) -> Result<MpiJob, Vec<FieldError>> {
    match serde_json::from_value(object) {
        Ok(read) => job(&read),
        Err(error) => Err(vec![FieldError::new("spec", format!("cannot be read: {error}"))]),
    }
}

/// What the gang is told where the job does not say.
fn complete_scheduling(
    policy: &mut SchedulingPolicy,
    metadata: &ObjectMeta,
    specs: &BTreeMap<&'static str, ReplicaSpec>,
    creation: LauncherCreation,
) {
    if policy.min_available.is_none() && creation == LauncherCreation::WorkersReady {
        // The launcher comes when the gang already runs, and cannot be waited for.
        policy.min_available = specs.get(WORKER).map(|worker| worker.replicas.unwrap_or(1));
    }
    if policy.queue.is_none() {
        policy.queue = metadata.annotations.as_ref().and_then(|all| all.get(VOLCANO_QUEUE)).cloned();
    }
    let named = |type_: &str| {
        specs.get(type_)?.template.spec.as_ref()?.priority_class_name.clone().filter(|name| !name.is_empty())
    };
    policy.priority_class =
        policy.priority_class.take().or_else(|| named(LAUNCHER)).or_else(|| named(WORKER));
}

fn replicas(dialect: Dialect, specs: &BTreeMap<&'static str, ReplicaSpec>) -> Vec<Replica> {
    let replica = |type_: &'static ReplicaType| {
        let spec = specs.get(type_.name)?;
        let usual = match (dialect, type_.name) {
            (Dialect::V2, LAUNCHER) => RestartPolicy::OnFailure,
            _ => RestartPolicy::Never,
        };
        Some(Replica {
            type_,
            count: spec.replicas.unwrap_or(1),
            restart_policy: spec.restart_policy.clone().unwrap_or(usual),
            template: spec.template.clone(),
        })
    };
    KIND.replica_types.iter().filter_map(replica).collect()
}

impl MpiJob {
    /// How many workers it wants.
    pub fn workers(&self) -> i32 {
        self.job.replica(WORKER).map_or(0, |worker| worker.count)
    }

    /// The launcher's replica.
    pub(super) fn launcher(&self) -> Option<&Replica> {
        self.job.replica(LAUNCHER)
    }

    /// Whether a worker that fails is replaced alone.
    pub(super) fn is_elastic(&self) -> bool {
        self.job.restart_scope() == RestartScope::Pod
    }

    /// How many launcher failures the job may have.
    pub(super) fn backoff_limit(&self) -> i32 {
        let never = self.launcher().is_some_and(|launcher| launcher.restart_policy == RestartPolicy::Never);
        self.job.run_policy.backoff_limit.unwrap_or(match (self.dialect, never) {
            // A Job's own default.
            (Dialect::V2, _) => 6,
            (Dialect::V1, true) => 0,
            (Dialect::V1, false) => i32::MAX,
        })
    }

    /// How many failures an elastic job's workers may have, with the launcher's; as many as it takes where the older version
    /// does not say, whose default is about the launcher alone.
    pub(super) fn replacement_limit(&self) -> Option<u64> {
        match (self.dialect, self.job.run_policy.backoff_limit) {
            (Dialect::V1, None) => None,
            _ => Some(u64::try_from(self.backoff_limit()).unwrap_or(0)),
        }
    }

    /// The place of the container that runs the program, in a pod of this template.
    pub(super) fn main_container(&self, template: &PodTemplateSpec) -> usize {
        let containers = template.spec.iter().flat_map(|spec| &spec.containers);
        let mut names = containers.map(|container| container.name.as_str());
        let named = match (&self.main_container, self.dialect) {
            (Some(name), _) => names.position(|other| other == name),
            (None, Dialect::V1) => names.position(|name| name == "mpi"),
            (None, Dialect::V2) => None,
        };
        named.unwrap_or(0)
    }
}
