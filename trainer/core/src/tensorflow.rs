//! The rules of `TFJob`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::EnvVar;
use muster_trainer_api::{ReplicaSpec, RestartPolicy, SuccessPolicy, TFJob};
use serde_json::{Map, Value, json};

use crate::environment::{unbuffered_python, variable};
use crate::job::{Draft, Job, Replica, RestartScope};
use crate::kind::{Framework, Kind, Loss, Progress, ReplicaCounts, ReplicaType};
use crate::objects::object_name;
use crate::validation::FieldError;

const CHIEF: &str = "Chief";
const MASTER: &str = "Master";
const WORKER: &str = "Worker";
const PARAMETER_SERVER: &str = "PS";
const EVALUATOR: &str = "Evaluator";

/// The data of `TFJob`.
pub static KIND: Kind = Kind {
    name: "TFJob",
    plural: "tfjobs",
    operator_name: "tfjob-controller",
    framework_label: "tensorflow",
    replica_specs: "tfReplicaSpecs",
    replica_types: &[
        ReplicaType { name: CHIEF, exactly: None },
        ReplicaType { name: MASTER, exactly: None },
        ReplicaType { name: WORKER, exactly: None },
        ReplicaType { name: PARAMETER_SERVER, exactly: None },
        ReplicaType { name: EVALUATOR, exactly: None },
    ],
    container: "tensorflow",
    port_name: "tfjob-port",
    port: 2222,
    restart_policy: RestartPolicy::Never,
};

/// The fields of a `TFJob` that are its own.
#[derive(Debug)]
struct TensorFlow {
    success_policy: SuccessPolicy,
    /// Workers come and go while the job runs.
    dynamic_workers: bool,
}

/// Checks a job and fills in its defaults.
pub fn job(job: &TFJob) -> Result<Job, Vec<FieldError>> {
    let framework = TensorFlow {
        success_policy: job.spec.success_policy.clone().unwrap_or(SuccessPolicy::FirstWorker),
        dynamic_workers: job.spec.enable_dynamic_worker.unwrap_or(false),
    };
    Draft {
        kind: &KIND,
        framework: Arc::new(framework),
        metadata: &job.metadata,
        replica_specs: &job.spec.tf_replica_specs,
        run_policy: &job.spec.run_policy,
        status: job.status.as_ref(),
    }
    .check()
}

/// The replicas whose end is the end of the job, where there are such.
fn chief(job: &Job) -> Option<&Replica> {
    job.replica(CHIEF).or_else(|| job.replica(MASTER))
}

/// Where the tasks of a replica type listen.
fn addresses(job: &Job, replica: &Replica, cluster_domain: Option<&str>) -> Vec<String> {
    let port = replica.port(&KIND);
    let domain = cluster_domain.map(|domain| format!(".{domain}")).unwrap_or_default();
    let address = |index| {
        let service = object_name(job.name(), replica.type_.name, index);
        format!("{service}.{}.svc{domain}:{port}", job.namespace())
    };
    (0..replica.count).map(address).collect()
}

/// Every task of the cluster; evaluators are outside it.
fn whole_cluster(job: &Job, cluster_domain: Option<&str>) -> Value {
    let members = job.replicas.iter().filter(|replica| replica.type_.name != EVALUATOR);
    let cluster: Map<String, Value> =
        members.map(|replica| (replica.label(), json!(addresses(job, replica, cluster_domain)))).collect();
    cluster.into()
}

/// What a task needs to know where workers come and go: a worker itself and the parameter servers, a parameter
/// server itself.
fn sparse_cluster(job: &Job, replica: &Replica, index: i32, cluster_domain: Option<&str>) -> Value {
    let own = || addresses(job, replica, cluster_domain).into_iter().nth(index.unsigned_abs() as usize);
    let servers = job.replica(PARAMETER_SERVER);
    match replica.type_.name {
        WORKER => json!({
            "worker": {index.to_string(): own()},
            "ps": servers.map(|servers| addresses(job, servers, cluster_domain)).unwrap_or_default(),
        }),
        PARAMETER_SERVER => json!({"worker": {}, "ps": [own()]}),
        _ => json!({"worker": {}, "ps": []}),
    }
}

impl Framework for TensorFlow {
    fn validate(&self, replica_specs: &BTreeMap<&'static str, ReplicaSpec>, errors: &mut Vec<FieldError>) {
        let path = format!("spec.{}", KIND.replica_specs);
        if replica_specs.contains_key(CHIEF) && replica_specs.contains_key(MASTER) {
            errors.push(FieldError::new(
                format!("{path}[{MASTER}]"),
                format!("is the older name of {CHIEF}, which the job has: keep one of them"),
            ));
        }
        let ending = [CHIEF, MASTER, WORKER];
        if !replica_specs.is_empty() && !ending.iter().any(|type_| replica_specs.contains_key(type_)) {
            errors.push(FieldError::new(
                path,
                format!(
                    "{PARAMETER_SERVER} and {EVALUATOR} alone never end the job: add {WORKER} or {CHIEF}"
                ),
            ));
        }
        if let SuccessPolicy::Unknown(other) = &self.success_policy {
            errors.push(FieldError::new(
                "spec.successPolicy",
                format!("`{other}` is unknown, use AllWorkers, or leave it out for the first worker"),
            ));
        }
    }

    fn restart_scope(&self) -> RestartScope {
        if self.dynamic_workers { RestartScope::Pod } else { RestartScope::Gang }
    }

    fn loss(&self, job: &Job, replica: &Replica) -> Loss {
        match (self.dynamic_workers && replica.type_.name == WORKER, chief(job)) {
            (true, Some(_)) => Loss::Borne,
            (true, None) => Loss::BorneByOthers,
            (false, _) => Loss::Fatal,
        }
    }

    fn leads(&self, job: &Job, replica: &Replica, index: i32) -> bool {
        match chief(job) {
            Some(chief) => replica.type_ == chief.type_,
            None => replica.type_.name == WORKER && index == 0,
        }
    }

    fn environment(&self, _: &Job, _: &Replica, _: i32) -> Vec<EnvVar> {
        vec![unbuffered_python()]
    }

    fn training_environment(
        &self,
        job: &Job,
        replica: &Replica,
        index: i32,
        cluster_domain: Option<&str>,
    ) -> Vec<EnvVar> {
        // A process alone takes itself for one of a cluster when it is told of one.
        if job.total() == 1 {
            return Vec::new();
        }
        let task = json!({"type": replica.label(), "index": index});
        let config = if self.dynamic_workers {
            json!({"sparseCluster": sparse_cluster(job, replica, index, cluster_domain), "task": task})
        } else {
            // TensorFlow up to 1.3 takes anything but `cloud` for a process of its own.
            json!({"cluster": whole_cluster(job, cluster_domain), "task": task, "environment": "cloud"})
        };
        vec![variable("TF_CONFIG", config)]
    }

    fn progress(&self, job: &Job, counts: &BTreeMap<&'static str, ReplicaCounts>) -> Progress {
        if let Some(chief) = chief(job) {
            return Progress::led_by(chief.type_.name, counts);
        }
        let first_succeeded = counts.get(WORKER).is_some_and(|workers| workers.first_succeeded);
        if first_succeeded && self.success_policy != SuccessPolicy::AllWorkers {
            return Progress::Succeeded("the first worker has ended well".to_owned());
        }
        Progress::led_by(WORKER, counts)
    }
}
