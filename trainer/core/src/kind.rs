//! What two training kinds differ in.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Container, EnvVar};
use muster_trainer_api::{ReplicaSpec, RestartPolicy};

use crate::job::{Job, Replica, RestartScope};
use crate::validation::FieldError;

/// The data of a training kind.
#[derive(Debug)]
pub struct Kind {
    /// Its name, such as `PyTorchJob`; also the start of every condition reason.
    pub name: &'static str,
    /// Its resource, such as `pytorchjobs`.
    pub plural: &'static str,
    /// Value of the label `training.kubeflow.org/operator-name`, and name of the controller in events.
    pub operator_name: &'static str,
    /// Value of the label `framework` of metrics.
    pub framework_label: &'static str,
    /// Field of `spec` that holds the replicas.
    pub replica_specs: &'static str,
    /// The replica types, leaders first.
    pub replica_types: &'static [ReplicaType],
    /// The container that trains.
    pub container: &'static str,
    /// The port through which the replicas find each other.
    pub port_name: &'static str,
    /// Its number, where the container names none.
    pub port: i32,
    /// Restart policy of replicas that name none.
    pub restart_policy: RestartPolicy,
}

/// A replica type of a kind.
#[derive(Debug, PartialEq, Eq)]
pub struct ReplicaType {
    /// Its name, such as `Master`; in names and labels in lower case.
    pub name: &'static str,
    /// The only number of replicas allowed, if there is one.
    pub exactly: Option<i32>,
}

/// The pods of one replica type by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplicaCounts {
    /// How many there should be.
    pub wanted: i32,
    /// How many run.
    pub active: i32,
    /// How many ended well.
    pub succeeded: i32,
    /// How many failed or are lost.
    pub failed: i32,
    /// Whether the one with index 0 ended well.
    pub first_succeeded: bool,
}

/// How far a job has come, by its framework's own rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The pods that matter do not run yet.
    Waiting,
    /// The pods that matter run.
    Running,
    /// The job has reached its aim; the text says how.
    Succeeded(String),
}

/// What it means for a job that one of its pods has failed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The job fails.
    Fatal,
    /// The job goes on while others of the replica type are left.
    BorneByOthers,
    /// The job goes on.
    Borne,
}

impl Progress {
    /// By the pods of one replica type: it runs when one of them does, and has reached its aim when all have ended
    /// well.
    pub(crate) fn led_by(type_: &str, counts: &BTreeMap<&'static str, ReplicaCounts>) -> Self {
        let leading = counts.get(type_).copied().unwrap_or_default();
        if leading.wanted > 0 && leading.succeeded >= leading.wanted {
            let type_ = type_.to_lowercase();
            return Self::Succeeded(match leading.wanted {
                1 => format!("the {type_} has ended well"),
                all => format!("all {all} {type_}s have ended well"),
            });
        }
        if leading.active > 0 { Self::Running } else { Self::Waiting }
    }
}

/// The container that holds a worker back until its master can be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitContainer {
    /// Image with a shell and `getent` or `nslookup`.
    pub image: String,
    /// How long it looks before it fails.
    pub timeout: Duration,
}

impl Default for InitContainer {
    fn default() -> Self {
        Self { image: "alpine:3.10".to_owned(), timeout: Duration::from_secs(200) }
    }
}

/// The rules of a training kind that are its own; those with a default are what most kinds have in common.
pub trait Framework: Debug + Send + Sync {
    /// Checks the kind's own fields; `replica_specs` have their types normalised.
    fn validate(&self, _replica_specs: &BTreeMap<&'static str, ReplicaSpec>, _errors: &mut Vec<FieldError>) {}

    /// What is restarted when a pod fails and the job does not say.
    fn restart_scope(&self) -> RestartScope {
        RestartScope::Gang
    }

    /// What it means for the job that a pod has failed and its restart policy does not replace it.
    fn loss(&self, _job: &Job, _replica: &Replica) -> Loss {
        Loss::Fatal
    }

    /// The fewest and the most pods that take part, where ranks come and go by Muster's rendezvous.
    fn elastic_bounds(&self, _job: &Job) -> Option<(i32, i32)> {
        None
    }

    /// Whether this pod leads the job (label `training.kubeflow.org/job-role=master`).
    fn leads(&self, job: &Job, replica: &Replica, index: i32) -> bool;

    /// The pod's place among all pods of the job, from 0.
    fn rank(&self, job: &Job, replica: &Replica, index: i32) -> i32 {
        let before = job.replicas.iter().take_while(|before| before.type_ != replica.type_);
        index + before.map(|before| before.count).sum::<i32>()
    }

    /// The environment that every container of the pod gets.
    fn environment(&self, job: &Job, replica: &Replica, index: i32) -> Vec<EnvVar>;

    /// What the container that trains gets beside it; the cluster's domain is appended to the names of services.
    fn training_environment(
        &self,
        _job: &Job,
        _replica: &Replica,
        _index: i32,
        _cluster_domain: Option<&str>,
    ) -> Vec<EnvVar> {
        Vec::new()
    }

    /// Containers that run before the pod's own.
    fn init_containers(&self, _job: &Job, _replica: &Replica, _options: &InitContainer) -> Vec<Container> {
        Vec::new()
    }

    /// How far the job has come.
    fn progress(&self, job: &Job, counts: &BTreeMap<&'static str, ReplicaCounts>) -> Progress;

    /// The autoscaler that sets the number of workers, if the job asks for one.
    fn autoscaler(&self, _job: &Job) -> Option<HorizontalPodAutoscaler> {
        None
    }
}
