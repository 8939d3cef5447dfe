//! What runs a batch job: a Job for one node, an `MPIJob` for several. What both have is read here in one way.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_trainer_api::{ConditionType, MpiJob};
use serde_json::{Value, json};

use crate::dependency::Progress;
use crate::names;

/// The kind of a batch job's object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `batch/v1` Job.
    Job,
    /// `kubeflow.org/v1` `MPIJob`.
    MpiJob,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Job, Self::MpiJob];

    /// A merge patch of the object with these fields of how it runs, which are `suspend` and `activeDeadlineSeconds` in
    /// both kinds; only if it still is of this version, where one is given.
    pub fn patch(self, version: Option<&str>, annotations: Value, run: Value) -> Value {
        let spec = match self {
            Self::Job => run,
            Self::MpiJob => json!({ "runPolicy": run }),
        };
        json!({ "metadata": { "resourceVersion": version, "annotations": annotations }, "spec": spec })
    }
}

/// A batch job as the API server holds it.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// On one node, or an array of such.
    Job(Box<Job>),
    /// On several nodes.
    MpiJob(Box<MpiJob>),
}

impl From<Job> for Work {
    fn from(job: Job) -> Self {
        Self::Job(Box::new(job))
    }
}

impl From<MpiJob> for Work {
    fn from(job: MpiJob) -> Self {
        Self::MpiJob(Box::new(job))
    }
}

impl Work {
    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Job(_) => Kind::Job,
            Self::MpiJob(_) => Kind::MpiJob,
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Job(job) => &job.metadata,
            Self::MpiJob(job) => &job.metadata,
        }
    }

    /// Its number; none if it is no batch job.
    pub fn id(&self) -> Option<u64> {
        self.metadata().labels.as_ref()?.get(names::ID)?.parse().ok()
    }

    /// How many numbers it has: an array has one for each task.
    pub fn numbers(&self) -> u64 {
        match self {
            Self::Job(job) => {
                let tasks = job.spec.as_ref().and_then(|spec| spec.completions).unwrap_or(1);
                u64::try_from(tasks).unwrap_or(1).max(1)
            }
            Self::MpiJob(_) => 1,
        }
    }

    /// One of its annotations.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata().annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// Whether its pods are withheld.
    pub fn is_suspended(&self) -> bool {
        let suspend = match self {
            Self::Job(job) => job.spec.as_ref().and_then(|spec| spec.suspend),
            Self::MpiJob(job) => job.spec.run_policy.suspend,
        };
        suspend == Some(true)
    }

    /// On how many nodes it runs.
    pub fn nodes(&self) -> u32 {
        match self {
            Self::Job(_) => 1,
            Self::MpiJob(job) => {
                let workers = job.spec.mpi_replica_specs.get("Worker").and_then(|worker| worker.replicas);
                workers.and_then(|workers| u32::try_from(workers).ok()).unwrap_or(1)
            }
        }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let holds = |name: &str| self.holds(name);
        let started = || match self {
            Self::Job(job) => job.status.as_ref().is_some_and(|status| {
                status.ready.unwrap_or(0) > 0 || status.succeeded.is_some() || status.failed.is_some()
            }),
            Self::MpiJob(_) => holds("Running") || holds("Restarting"),
        };
        match () {
            () if holds("Complete") || holds("Succeeded") => Progress::Succeeded,
            () if holds("Failed") => Progress::Failed,
            () if started() => Progress::Started,
            () => Progress::Waiting,
        }
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        matches!(self.progress(), Progress::Succeeded | Progress::Failed)
    }

    /// Whether it has stopped, after a requeue, so that it can start again.
    pub fn has_stopped(&self) -> bool {
        let pods = |status: &JobStatus| status.active.unwrap_or(0) + status.terminating.unwrap_or(0);
        self.is_suspended()
            && match self {
                Self::Job(job) => {
                    job.status.as_ref().is_some_and(|status| pods(status) == 0 && status.start_time.is_none())
                }
                // Its own controller starts no pods before those of the last run are gone.
                Self::MpiJob(_) => self.holds("Suspended"),
            }
    }

    /// When it started, and when it ended.
    pub fn times(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        let started = match self {
            Self::Job(job) => job.status.as_ref().and_then(|status| status.start_time.as_ref()),
            Self::MpiJob(job) => job.status.as_ref().and_then(|status| status.start_time.as_ref()),
        };
        let ended = match self {
            Self::Job(job) => {
                let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
                conditions.filter_map(|one| one.last_transition_time.as_ref()).max()
            }
            Self::MpiJob(job) => job.status.as_ref().and_then(|status| status.completion_time.as_ref()),
        };
        (started.map(|time| time.0), ended.filter(|_| self.is_over()).map(|time| time.0))
    }

    /// Whether its own time limit ended it.
    pub(crate) fn ran_out_of_time(&self) -> bool {
        let Self::MpiJob(job) = self else { return false };
        let mut conditions = job.status.iter().flat_map(|status| &status.conditions);
        conditions.any(|condition| {
            condition.type_ == ConditionType::Failed
                && condition.reason.as_deref() == Some("DeadlineExceeded")
        })
    }

    fn holds(&self, name: &str) -> bool {
        match self {
            Self::Job(job) => {
                let mut conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
                conditions.any(|condition| condition.type_ == name && condition.status == "True")
            }
            Self::MpiJob(job) => {
                let mut conditions = job.status.iter().flat_map(|status| &status.conditions);
                conditions.any(|condition| condition.type_.as_str() == name && condition.status == "True")
            }
        }
    }
}
