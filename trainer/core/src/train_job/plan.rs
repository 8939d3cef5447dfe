//! From what is seen of a job to what is to be done for it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_trainer_api::jobset::JobSet;
use muster_trainer_api::jobset::names::{GROUP, VERSION};
use muster_trainer_api::train_job::{TrainJob, TrainJobStatus, TrainerStatus, managed_by, reason};
use serde_json::Value;

use super::planner::Planner;
use super::runtime::RuntimeSeen;
use super::status_server::StatusServer;
use crate::gang::GangScheduler;
use crate::plan::Event;

/// What is seen of a job's surroundings.
#[derive(Debug, Clone)]
pub struct Observed<'a> {
    /// The runtime that it names.
    pub runtime: RuntimeSeen<'a>,
    /// The JobSet of its name, whoever's it is.
    pub jobset: Option<&'a JobSet>,
    /// The `PodGroup` of its name.
    pub pod_group: Option<&'a Value>,
    /// The `ConfigMap` with its hosts.
    pub hostfile: Option<&'a ConfigMap>,
    /// Whether the Secret with its ssh keys is there.
    pub has_ssh_secret: bool,
    /// How far its first node says that it has come.
    pub trainer_status: Option<TrainerStatus>,
    /// Why its pods have no nodes yet, if they have none.
    pub waiting: Option<Waiting>,
    /// The server that takes the progress of jobs, if there is one.
    pub status_server: Option<&'a StatusServer>,
}

/// Why pods have no nodes yet, as their scheduler says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// In one word, such as `Unschedulable`.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// A JobSet to delete, its pods first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSetDeletion {
    /// Its name.
    pub name: String,
    /// Its uid, a precondition of the deletion.
    pub uid: String,
}

/// A change of the JobSet.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSetChange {
    /// Its name.
    pub name: String,
    /// What changes, provided that nothing else has.
    pub patch: json_patch::Patch,
}

/// A Secret with fresh ssh keys.
#[derive(Debug, Clone, PartialEq)]
pub struct SshKeys {
    /// Its metadata.
    pub metadata: ObjectMeta,
}

/// One step of a plan.
#[expect(clippy::large_enum_variant, reason = "a plan has a handful of steps")]
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write the job's status, provided that the job has not changed.
    WriteStatus(TrainJobStatus),
    /// Make ssh keys and create the Secret with them; one that is there stays.
    CreateSshKeys(SshKeys),
    /// Apply an object, as the owner of what it says.
    Apply(Value),
    /// Create the JobSet; one that is there stays.
    CreateJobSet(JobSet),
    /// Change the JobSet.
    ChangeJobSet(JobSetChange),
    /// Delete the JobSet.
    DeleteJobSet(JobSetDeletion),
    /// Set these annotations of the job, provided that the job has not changed.
    Annotate(BTreeMap<String, String>),
}

/// What is to be done for a job.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The job's new status, if it changes.
    pub status: Option<TrainJobStatus>,
    /// Keys to make.
    pub create_ssh_keys: Option<SshKeys>,
    /// What the JobSet needs to be there.
    pub apply_surroundings: Vec<Value>,
    /// The JobSet to create.
    pub create_jobset: Option<JobSet>,
    /// What changes in the JobSet that is there.
    pub change_jobset: Option<JobSetChange>,
    /// The JobSet to delete.
    pub delete_jobset: Option<JobSetDeletion>,
    /// Annotations of the job to set.
    pub annotations: BTreeMap<String, String>,
    /// What to tell, once the status is written.
    pub events: Vec<Event>,
    /// When to plan again even if nothing changes.
    pub requeue_after: Option<Duration>,
}

impl Plan {
    /// The steps in order; those of one stage may be taken at the same time.
    ///
    /// What is remembered comes first: a JobSet is deleted when the job's end is written. Annotations are for a JobSet to
    /// come, and wait: where they are refused, all else is done.
    pub fn stages(self) -> Vec<Vec<Effect>> {
        let keys = self.create_ssh_keys.map(Effect::CreateSshKeys);
        let stages = vec![
            self.status.map(Effect::WriteStatus).into_iter().collect(),
            keys.into_iter().chain(self.apply_surroundings.into_iter().map(Effect::Apply)).collect(),
            self.create_jobset.map(Effect::CreateJobSet).into_iter().collect(),
            self.change_jobset.map(Effect::ChangeJobSet).into_iter().collect(),
            self.delete_jobset.map(Effect::DeleteJobSet).into_iter().collect(),
            (!self.annotations.is_empty())
                .then_some(Effect::Annotate(self.annotations))
                .into_iter()
                .collect(),
        ];
        stages.into_iter().filter(|stage: &Vec<_>| !stage.is_empty()).collect()
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.clone().stages().is_empty()
    }
}

/// Plans what is to be done for a job.
pub fn plan(job: &TrainJob, observed: &Observed<'_>, now: Timestamp, scheduler: &GangScheduler) -> Plan {
    if !is_ours(job) {
        return Plan::default();
    }
    Planner::new(job, observed, now, scheduler).plan()
}

/// Plans what is to be said of a job where no JobSet can be made, for the cluster does not serve any.
pub fn plan_without_jobsets(job: &TrainJob, now: Timestamp) -> Plan {
    if !is_ours(job) {
        return Plan::default();
    }
    let message = format!(
        "waits for JobSet, in which training jobs run: the cluster does not serve JobSet of {GROUP}/{VERSION}; install it"
    );
    let observed = Observed {
        runtime: RuntimeSeen::Missing,
        jobset: None,
        pod_group: None,
        hostfile: None,
        has_ssh_secret: false,
        trainer_status: None,
        waiting: Some(Waiting { reason: reason::JOBSET_NOT_INSTALLED.to_owned(), message }),
        status_server: None,
    };
    Planner::new(job, &observed, now, &GangScheduler::None).plan_to_wait()
}

fn is_ours(job: &TrainJob) -> bool {
    let is_ours = matches!(job.spec.managed_by.as_deref(), None | Some("" | managed_by::TRAINER));
    is_ours && job.metadata.deletion_timestamp.is_none()
}
