//! The rules of `JAXJob`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::EnvVar;
use muster_trainer_api::{JAXJob, RestartPolicy};

use crate::environment::{unbuffered_python, variable};
use crate::job::{Draft, Job, Replica};
use crate::kind::{Framework, Kind, Progress, ReplicaCounts, ReplicaType};
use crate::objects::object_name;
use crate::validation::FieldError;

const WORKER: &str = "Worker";

/// The data of `JAXJob`.
pub static KIND: Kind = Kind {
    name: "JAXJob",
    plural: "jaxjobs",
    operator_name: "jaxjob-controller",
    framework_label: "jax",
    replica_specs: "jaxReplicaSpecs",
    replica_types: &[ReplicaType { name: WORKER, exactly: None }],
    container: "jax",
    port_name: "jaxjob-port",
    port: 6666,
    restart_policy: RestartPolicy::Never,
};

#[derive(Debug)]
struct Jax;

/// Checks a job and fills in its defaults.
pub fn job(job: &JAXJob) -> Result<Job, Vec<FieldError>> {
    Draft {
        kind: &KIND,
        framework: Arc::new(Jax),
        metadata: &job.metadata,
        replica_specs: &job.spec.jax_replica_specs,
        run_policy: &job.spec.run_policy,
        status: job.status.as_ref(),
    }
    .check()
}

impl Framework for Jax {
    fn leads(&self, _: &Job, _: &Replica, index: i32) -> bool {
        index == 0
    }

    fn environment(&self, job: &Job, replica: &Replica, index: i32) -> Vec<EnvVar> {
        vec![
            unbuffered_python(),
            variable("COORDINATOR_PORT", replica.port(&KIND)),
            variable("COORDINATOR_ADDRESS", object_name(job.name(), WORKER, 0)),
            variable("NUM_PROCESSES", job.total()),
            variable("PROCESS_ID", index),
        ]
    }

    fn progress(&self, _: &Job, counts: &BTreeMap<&'static str, ReplicaCounts>) -> Progress {
        Progress::led_by(WORKER, counts)
    }
}
