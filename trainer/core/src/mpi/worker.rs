//! The worker pods.

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_trainer_api::{RestartPolicy, label};

use super::framework::WORKER;
use super::job::{MpiJob, RemoteShell};
use super::labels::Role;
use super::ssh;
use crate::gang;
use crate::plan::Options;

/// Waits, and goes at once when it is told to: what runs in a worker is started from outside.
const SLEEPER: [&str; 3] = ["/bin/sh", "-c", "trap 'exit 0' TERM INT; sleep 2147483647 & wait"];

/// Whether a container leaves to us what it runs.
pub(super) fn starts_nothing(container: &Container) -> bool {
    container.command.as_ref().is_none_or(Vec::is_empty) && container.args.as_ref().is_none_or(Vec::is_empty)
}

impl MpiJob {
    /// A worker of this generation.
    pub(super) fn worker(&self, index: i32, generation: u64, options: &Options) -> Option<Pod> {
        let replica = self.job.replica(WORKER)?;
        let name = self.worker_name(index);
        let (template, main) = self.prepared(&replica.template, Role::Worker(index), name.clone(), options);
        let given = template.metadata.unwrap_or_default();
        let mut labels = given.labels.unwrap_or_default();
        labels.insert(label::GANG_GENERATION.to_owned(), generation.to_string());
        let mut spec = template.spec.unwrap_or_default();
        let policy = match replica.restart_policy {
            RestartPolicy::ExitCode => "Never",
            ref policy => policy.as_str(),
        };
        spec.restart_policy = Some(policy.to_owned());
        if let Some(container) = spec.containers.get_mut(main).filter(|container| starts_nothing(container)) {
            let command: &[&str] = match self.remote_shell {
                RemoteShell::Sshd => &ssh::SERVER,
                RemoteShell::Agent => &SLEEPER,
            };
            container.command = Some(command.iter().map(|word| (*word).to_owned()).collect());
        }
        let mut pod = Pod {
            metadata: ObjectMeta {
                annotations: given.annotations,
                finalizers: given.finalizers,
                ..self.metadata(name, labels)
            },
            spec: Some(spec),
            status: None,
        };
        gang::join(&self.job, replica, index, &options.gang_scheduler, &mut pod);
        Some(pod)
    }
}
