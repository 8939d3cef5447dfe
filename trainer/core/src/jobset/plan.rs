//! From what is seen of a set to what is to be done for it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};
use muster_trainer_api::jobset::{JobSet, JobSetStatus, names};

use super::planner::Planner;
use crate::gang::GangScheduler;
use crate::plan::Event;

/// What is seen in the set's namespace; objects of others among them do no harm.
#[derive(Debug, Clone, Copy, Default)]
pub struct Observed<'a> {
    /// Jobs.
    pub jobs: &'a [Job],
    /// The service by the name of the set's subdomain.
    pub service: Option<&'a Service>,
    /// Names of volume claims.
    pub claims: &'a [String],
}

/// A Job to delete, its pods first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDeletion {
    /// Its name.
    pub name: String,
    /// Its uid, a precondition of the deletion.
    pub uid: String,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write the set's status, provided that the set has not changed.
    WriteStatus(JobSetStatus),
    /// Delete a Job.
    DeleteJob(JobDeletion),
    /// Create the headless service.
    CreateService(Service),
    /// Create a volume claim.
    CreateClaim(PersistentVolumeClaim),
    /// Replace a Job, provided that it has not changed: it is suspended or resumed.
    UpdateJob(Job),
    /// Create a Job.
    CreateJob(Job),
    /// Delete the set.
    DeleteSet,
}

/// What is to be done for a set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The set's new status, if it changes.
    pub status: Option<JobSetStatus>,
    /// Jobs to delete.
    pub delete_jobs: Vec<JobDeletion>,
    /// The service to create.
    pub create_service: Option<Service>,
    /// Volume claims to create.
    pub create_claims: Vec<PersistentVolumeClaim>,
    /// Jobs to suspend or resume.
    pub update_jobs: Vec<Job>,
    /// Jobs to create.
    pub create_jobs: Vec<Job>,
    /// Whether the set is to be deleted.
    pub delete_set: bool,
    /// What to tell, once the status is written.
    pub events: Vec<Event>,
    /// When to plan again even if nothing changes.
    pub requeue_after: Option<Duration>,
}

impl Plan {
    /// The steps in order; those of one stage may be taken at the same time.
    ///
    /// What is remembered comes first: a restart is counted before the first Job of it is deleted.
    pub fn stages(self) -> Vec<Vec<Effect>> {
        let claims = self.create_claims.into_iter().map(Effect::CreateClaim);
        let updates = self.update_jobs.into_iter().map(Effect::UpdateJob);
        let stages = vec![
            self.status.map(Effect::WriteStatus).into_iter().collect(),
            self.delete_jobs.into_iter().map(Effect::DeleteJob).collect(),
            self.create_service.map(Effect::CreateService).into_iter().chain(claims).collect(),
            updates.chain(self.create_jobs.into_iter().map(Effect::CreateJob)).collect(),
            self.delete_set.then_some(Effect::DeleteSet).into_iter().collect(),
        ];
        stages.into_iter().filter(|stage: &Vec<_>| !stage.is_empty()).collect()
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.clone().stages().is_empty()
    }
}

/// Plans what is to be done for a set.
pub fn plan(set: &JobSet, observed: &Observed<'_>, now: Timestamp, scheduler: &GangScheduler) -> Plan {
    let is_ours = matches!(set.spec.managed_by.as_deref(), None | Some("" | names::CONTROLLER));
    if set.metadata.deletion_timestamp.is_some() || !is_ours {
        return Plan::default();
    }
    Planner::new(set, observed, now, scheduler).plan()
}
