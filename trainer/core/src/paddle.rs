//! The rules of `PaddleJob`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector};
use muster_trainer_api::{PaddleElasticPolicy, PaddleJob, ReplicaSpec, RestartPolicy};

use crate::elastic::{Bounds, WORKER};
use crate::environment::{unbuffered_python, variable};
use crate::job::{Draft, Job, Replica};
use crate::kind::{Framework, Kind, Progress, ReplicaCounts, ReplicaType};
use crate::objects::object_name;
use crate::validation::FieldError;

const MASTER: &str = "Master";

/// The data of `PaddleJob`.
pub static KIND: Kind = Kind {
    name: "PaddleJob",
    plural: "paddlejobs",
    operator_name: "paddlejob-controller",
    framework_label: "paddle",
    replica_specs: "paddleReplicaSpecs",
    replica_types: &[
        ReplicaType { name: MASTER, exactly: None },
        ReplicaType { name: WORKER, exactly: None },
    ],
    container: "paddle",
    port_name: "master",
    port: 36543,
    restart_policy: RestartPolicy::OnFailure,
};

/// The fields of a `PaddleJob` that are its own.
///
/// An elastic one restarts as a gang like the others: Paddle's launcher counts the nodes that it was told of
/// (`PADDLE_NNODES`), so pods of two sizes would wait for each other in vain.
#[derive(Debug)]
struct Paddle {
    elastic: Option<PaddleElasticPolicy>,
}

/// Checks a job and fills in its defaults.
pub fn job(job: &PaddleJob) -> Result<Job, Vec<FieldError>> {
    Draft {
        kind: &KIND,
        framework: Arc::new(Paddle { elastic: job.spec.elastic_policy.clone() }),
        metadata: &job.metadata,
        replica_specs: &job.spec.paddle_replica_specs,
        run_policy: &job.spec.run_policy,
        status: job.status.as_ref(),
    }
    .check()
}

/// The replica type whose first pod the others meet at: with masters they are parameter servers, without them the
/// workers are peers.
fn meeting_type(job: &Job) -> &'static str {
    if job.replica(MASTER).is_some() { MASTER } else { WORKER }
}

/// Where the launchers of all pods meet; the one that listens there says so by its own address.
fn master_address(job: &Job, replica: &Replica, index: i32) -> Vec<EnvVar> {
    let type_ = meeting_type(job);
    let port = job.replica(type_).map_or(KIND.port, |meeting| meeting.port(&KIND));
    if replica.type_.name != type_ || index != 0 {
        return vec![variable("PADDLE_MASTER", format!("{}:{port}", object_name(job.name(), type_, 0)))];
    }
    let pod_address = ObjectFieldSelector { field_path: "status.podIP".to_owned(), ..Default::default() };
    vec![
        EnvVar {
            name: "POD_IP_DUMMY".to_owned(),
            value: None,
            value_from: Some(EnvVarSource { field_ref: Some(pod_address), ..EnvVarSource::default() }),
        },
        variable("PADDLE_MASTER", format!("$(POD_IP_DUMMY):{port}")),
    ]
}

fn bounds(elastic: &PaddleElasticPolicy) -> Bounds {
    Bounds { min_replicas: elastic.min_replicas, max_replicas: elastic.max_replicas }
}

impl Framework for Paddle {
    fn validate(&self, replica_specs: &BTreeMap<&'static str, ReplicaSpec>, errors: &mut Vec<FieldError>) {
        if let Some(elastic) = &self.elastic {
            bounds(elastic).validate(&KIND, replica_specs, errors);
        }
    }

    fn leads(&self, job: &Job, replica: &Replica, index: i32) -> bool {
        match meeting_type(job) {
            MASTER => replica.type_.name == MASTER,
            _ => index == 0,
        }
    }

    fn environment(&self, job: &Job, replica: &Replica, index: i32) -> Vec<EnvVar> {
        let mut variables = vec![
            unbuffered_python(),
            variable("PADDLE_JOB_ID", job.name()),
            variable("PADDLE_NNODES", job.total()),
        ];
        variables.extend(master_address(job, replica, index));
        if job.replica(MASTER).is_some() {
            let role = if replica.type_.name == MASTER { "PADDLE_SERVER_NUM" } else { "PADDLE_TRAINER_NUM" };
            variables.push(variable(role, 1));
        }
        let restarts = self.elastic.as_ref().and_then(|elastic| elastic.max_restarts);
        variables.extend(restarts.map(|restarts| variable("PADDLE_MAX_RESTART", restarts)));
        variables
    }

    fn progress(&self, job: &Job, counts: &BTreeMap<&'static str, ReplicaCounts>) -> Progress {
        Progress::led_by(meeting_type(job), counts)
    }

    fn autoscaler(&self, job: &Job) -> Option<HorizontalPodAutoscaler> {
        let elastic = self.elastic.as_ref()?;
        bounds(elastic).autoscaler(job, &elastic.metrics)
    }
}
