//! What there is of a job, sorted by what it means.

use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_trainer_api::label;

use super::framework::WORKER;
use super::job::MpiJob;
use super::planner::Observed;
use crate::kind::ReplicaCounts;
use crate::members::{self, Member, Phase};

/// The pods of a job, and its launcher.
#[derive(Debug)]
pub(super) struct State<'a> {
    /// The generation that is current: the job's, or a later one that its objects tell of.
    pub(super) generation: u64,
    /// Workers of that generation, as many as are wanted.
    pub(super) workers: Vec<Member<'a>>,
    /// Workers beyond the wanted number.
    pub(super) surplus: Vec<&'a Pod>,
    /// Workers of earlier generations.
    pub(super) retired: Vec<&'a Pod>,
    /// The launcher, of whichever generation.
    pub(super) launcher: Option<&'a Job>,
    /// The launcher's pods.
    pub(super) launcher_pods: Vec<&'a Pod>,
}

fn generation(metadata: &ObjectMeta) -> u64 {
    let labels = metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(label::GANG_GENERATION)?.parse().ok()).unwrap_or(0)
}

fn is_controlled_by(metadata: &ObjectMeta, uid: Option<&str>) -> bool {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && Some(owner.uid.as_str()) == uid)
}

impl<'a> State<'a> {
    pub(super) fn sort(job: &'a MpiJob, observed: &Observed<'a>, generation_of_job: u64) -> Self {
        let name = job.launcher_name();
        let launcher = observed.launchers.iter().find(|launcher| {
            members::owns(&job.job, &launcher.metadata)
                && launcher.metadata.name.as_deref() == Some(name.as_str())
        });
        let launcher_uid = launcher.and_then(|launcher| launcher.metadata.uid.as_deref());
        let of_launcher =
            |pod: &&Pod| launcher_uid.is_some() && is_controlled_by(&pod.metadata, launcher_uid);
        let launcher_pods = observed.pods.iter().filter(of_launcher).collect();
        let workers: Vec<&Pod> =
            observed.pods.iter().filter(|pod| members::owns(&job.job, &pod.metadata)).collect();
        let seen = workers.iter().map(|pod| generation(&pod.metadata));
        let latest = seen.chain(launcher.map(|launcher| generation(&launcher.metadata))).max().unwrap_or(0);
        let mut state = Self {
            generation: generation_of_job.max(latest),
            workers: Vec::new(),
            surplus: Vec::new(),
            retired: Vec::new(),
            launcher,
            launcher_pods,
        };
        let prefix = format!("{}-worker-", job.job.name());
        for pod in workers {
            if generation(&pod.metadata) < state.generation {
                state.retired.push(pod);
                continue;
            }
            let index = members::name(pod).strip_prefix(&prefix).and_then(|index| index.parse::<i32>().ok());
            match (index, job.job.replica(WORKER)) {
                (Some(index), Some(replica)) if index < replica.count => {
                    state.workers.push(Member { pod, replica, index, phase: members::phase(pod) });
                }
                _ => state.surplus.push(pod),
            }
        }
        state.workers.sort_by_key(|worker| worker.index);
        state
    }

    /// The launcher of the current generation.
    pub(super) fn current_launcher(&self) -> Option<&'a Job> {
        self.launcher.filter(|launcher| generation(&launcher.metadata) == self.generation)
    }

    /// The launcher of an earlier generation.
    pub(super) fn retired_launcher(&self) -> Option<&'a Job> {
        self.launcher.filter(|launcher| generation(&launcher.metadata) < self.generation)
    }

    /// The end of the current launcher, if it has come: `Complete` or `Failed`.
    pub(super) fn launcher_end(&self, type_: &str) -> Option<&'a JobCondition> {
        let mut conditions = self.current_launcher()?.status.as_ref()?.conditions.iter().flatten();
        conditions.find(|condition| condition.type_ == type_ && condition.status == "True")
    }

    /// How often the launcher has failed, in this generation.
    pub(super) fn launcher_failures(&self) -> u32 {
        let status = self.launcher.and_then(|launcher| launcher.status.as_ref());
        status.and_then(|status| u32::try_from(status.failed?).ok()).unwrap_or(0)
    }

    pub(super) fn launcher_counts(&self) -> ReplicaCounts {
        let status = self.current_launcher().and_then(|launcher| launcher.status.clone()).unwrap_or_default();
        let runs = |pod: &&&Pod| members::phase(pod) == Phase::Running && !members::is_deleting(pod);
        let active = i32::try_from(self.launcher_pods.iter().filter(runs).count()).unwrap_or(i32::MAX);
        let counts = ReplicaCounts { wanted: 1, active, ..ReplicaCounts::default() };
        let (succeeded, failed) = (status.succeeded.unwrap_or(0), status.failed.unwrap_or(0));
        ReplicaCounts { succeeded, failed, ..counts }
    }

    pub(super) fn worker_counts(&self, wanted: i32) -> ReplicaCounts {
        let mut counts = ReplicaCounts { wanted, ..ReplicaCounts::default() };
        for worker in &self.workers {
            match worker.phase {
                Phase::Running if members::is_deleting(worker.pod) => counts.failed += 1,
                Phase::Running => counts.active += 1,
                Phase::Succeeded => counts.succeeded += 1,
                Phase::Failed => counts.failed += 1,
                Phase::Pending => {}
            }
        }
        counts
    }

    /// Indexes of the workers that run.
    pub(super) fn running(&self) -> Vec<i32> {
        let runs = |worker: &&Member<'_>| worker.phase == Phase::Running && !members::is_deleting(worker.pod);
        self.workers.iter().filter(runs).map(|worker| worker.index).collect()
    }

    /// Whether this many workers are there and ready.
    pub(super) fn are_ready(&self, wanted: i32) -> bool {
        let is_ready = |worker: &&Member<'_>| {
            let conditions = worker.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            let mut conditions = conditions.into_iter().flatten();
            !members::is_deleting(worker.pod)
                && conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
        };
        i64::try_from(self.workers.iter().filter(is_ready).count()).unwrap_or(i64::MAX) >= i64::from(wanted)
    }

    /// A worker that the machine has thrown out for want of room.
    pub(super) fn evicted(&self) -> Option<&Member<'a>> {
        self.workers.iter().find(|worker| {
            let status = worker.pod.status.as_ref();
            worker.phase == Phase::Failed
                && status.and_then(|status| status.reason.as_deref()) == Some("Evicted")
        })
    }
}
