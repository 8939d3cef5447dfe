//! The rules of `XGBoostJob`, which also runs LightGBM.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::EnvVar;
use muster_trainer_api::{ReplicaSpec, RestartPolicy, XGBoostJob};

use crate::environment::{unbuffered_python, variable};
use crate::job::{Draft, Job, Replica};
use crate::kind::{Framework, Kind, Progress, ReplicaCounts, ReplicaType};
use crate::objects::object_name;
use crate::validation::FieldError;

const MASTER: &str = "Master";
const WORKER: &str = "Worker";

/// The data of `XGBoostJob`.
pub static KIND: Kind = Kind {
    name: "XGBoostJob",
    plural: "xgboostjobs",
    operator_name: "xgboostjob-controller",
    framework_label: "xgboost",
    replica_specs: "xgbReplicaSpecs",
    replica_types: &[
        ReplicaType { name: MASTER, exactly: Some(1) },
        ReplicaType { name: WORKER, exactly: None },
    ],
    container: "xgboost",
    port_name: "xgboostjob-port",
    port: 9999,
    restart_policy: RestartPolicy::Never,
};

#[derive(Debug)]
struct XGBoost;

/// Checks a job and fills in its defaults.
pub fn job(job: &XGBoostJob) -> Result<Job, Vec<FieldError>> {
    Draft {
        kind: &KIND,
        framework: Arc::new(XGBoost),
        metadata: &job.metadata,
        replica_specs: &job.spec.xgb_replica_specs,
        run_policy: &job.spec.run_policy,
        status: job.status.as_ref(),
    }
    .check()
}

impl Framework for XGBoost {
    fn validate(&self, replica_specs: &BTreeMap<&'static str, ReplicaSpec>, errors: &mut Vec<FieldError>) {
        if !replica_specs.is_empty() && !replica_specs.contains_key(MASTER) {
            errors.push(FieldError::new(
                format!("spec.{}[{MASTER}]", KIND.replica_specs),
                "must be there: the workers find each other through the tracker on it",
            ));
        }
    }

    fn leads(&self, _: &Job, replica: &Replica, _: i32) -> bool {
        replica.type_.name == MASTER
    }

    fn environment(&self, job: &Job, replica: &Replica, index: i32) -> Vec<EnvVar> {
        let port = job.replica(MASTER).map_or(KIND.port, |master| master.port(&KIND));
        let mut variables = vec![
            unbuffered_python(),
            variable("MASTER_PORT", port),
            variable("MASTER_ADDR", object_name(job.name(), MASTER, 0)),
            variable("WORLD_SIZE", job.total()),
            variable("RANK", self.rank(job, replica, index)),
        ];
        // LightGBM lists its machines itself.
        if let Some(workers) = job.replica(WORKER) {
            let names: Vec<_> =
                (0..workers.count).map(|index| object_name(job.name(), WORKER, index)).collect();
            variables.push(variable("WORKER_PORT", workers.port(&KIND)));
            variables.push(variable("WORKER_ADDRS", names.join(",")));
        }
        variables
    }

    fn progress(&self, _: &Job, counts: &BTreeMap<&'static str, ReplicaCounts>) -> Progress {
        Progress::led_by(MASTER, counts)
    }
}
