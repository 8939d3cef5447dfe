//! The Jobs of a set, by what has become of them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec};
use muster_trainer_api::jobset::{JobSet, JobSetStatus, ReplicatedJob, ReplicatedJobStatus, label};

/// A Job that belongs to the set's present attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Child<'a> {
    pub(super) job: &'a Job,
    /// The group, by its place in the spec.
    pub(super) group: usize,
    /// Its index within the group.
    pub(super) index: i32,
}

/// How a Job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Complete,
    Failed,
}

/// The Jobs of a set.
#[derive(Debug, Default)]
pub(super) struct Children<'a> {
    /// Of the present attempt, in the order of the spec.
    pub(super) current: Vec<Child<'a>>,
    /// Of earlier attempts, or of groups that are no more.
    pub(super) retired: Vec<&'a Job>,
}

/// The condition by which a Job has ended.
pub(super) fn ending(job: &Job) -> Option<(Ending, &JobCondition)> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().filter(|condition| condition.status == "True").find_map(|condition| {
        let ending = match condition.type_.as_str() {
            "Complete" => Ending::Complete,
            "Failed" => Ending::Failed,
            _ => return None,
        };
        Some((ending, condition))
    })
}

/// When a Job ended.
pub(super) fn ended_at(condition: &JobCondition) -> Timestamp {
    condition.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// Whether the set is the Job's controller.
fn is_owned(job: &Job, uid: Option<&str>) -> bool {
    let owners = job.metadata.owner_references.iter().flatten();
    owners.into_iter().any(|owner| owner.controller == Some(true) && Some(owner.uid.as_str()) == uid)
}

fn number(labels: &BTreeMap<String, String>, label: &str) -> Option<i32> {
    labels.get(label)?.parse().ok()
}

/// How often this very Job was to be recreated by itself.
pub(super) fn own_restarts(status: &JobSetStatus, group: &str, index: i32) -> i32 {
    let of_group = status.replicated_jobs_status.iter().find(|of_group| of_group.name == group);
    of_group.and_then(|of_group| of_group.job_restarts.get(index as usize)).copied().unwrap_or(0)
}

impl<'a> Children<'a> {
    /// Sorts the Jobs that belong to the set, given what its status counts.
    pub(super) fn sort(set: &JobSet, status: &JobSetStatus, jobs: &'a [Job]) -> Self {
        let mut children = Self::default();
        for job in jobs.iter().filter(|job| is_owned(job, set.metadata.uid.as_deref())) {
            match place(set, status, job) {
                Some((group, index)) => children.current.push(Child { job, group, index }),
                None => children.retired.push(job),
            }
        }
        children.current.sort_by_key(|child| (child.group, child.index));
        children
    }

    /// The Jobs of a group.
    pub(super) fn of_group(&self, group: usize) -> impl Iterator<Item = &Child<'a>> {
        self.current.iter().filter(move |child| child.group == group)
    }

    /// The Jobs that have not ended, retired ones too.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = &'a Job> {
        let current = self.current.iter().map(|child| child.job);
        current.chain(self.retired.iter().copied()).filter(|job| ending(job).is_none())
    }
}

/// The group and index of a Job of the present attempt.
fn place(set: &JobSet, status: &JobSetStatus, job: &Job) -> Option<(usize, i32)> {
    let labels = job.metadata.labels.as_ref()?;
    let name = labels.get(label::REPLICATED_JOB_NAME)?;
    let group = set.spec.replicated_jobs.iter().position(|group| group.name == *name)?;
    let index = number(labels, label::JOB_INDEX)?;
    let attempt = number(labels, label::RESTART_ATTEMPT).unwrap_or(0);
    let own_attempt = number(labels, label::JOB_RESTART_ATTEMPT).unwrap_or(0);
    let is_current = attempt >= status.restarts
        && own_attempt >= own_restarts(status, name, index)
        && (0..replicas(&set.spec.replicated_jobs[group])).contains(&index);
    is_current.then_some((group, index))
}

/// How many Jobs a group has.
pub(super) fn replicas(group: &ReplicatedJob) -> i32 {
    group.replicas.unwrap_or(1).max(0)
}

/// How many pods of a group run at once.
pub(crate) fn pods_of(group: &ReplicatedJob) -> i32 {
    group.template.spec.as_ref().map_or(1, at_once) * replicas(group)
}

/// How many pods of a Job run at once.
fn at_once(spec: &JobSpec) -> i32 {
    let parallelism = spec.parallelism.unwrap_or(1);
    spec.completions.map_or(parallelism, |completions| completions.min(parallelism))
}

/// How the Jobs of a group fare; what was counted of their restarts is kept.
pub(super) fn status_of_group(
    set: &JobSet,
    children: &Children<'_>,
    group: usize,
    before: &JobSetStatus,
) -> ReplicatedJobStatus {
    let name = set.spec.replicated_jobs[group].name.clone();
    let counted = before.replicated_jobs_status.iter().find(|of_group| of_group.name == name);
    let mut status = counted.cloned().unwrap_or_default();
    (status.ready, status.succeeded, status.failed, status.active, status.suspended) = (0, 0, 0, 0, 0);
    status.name = name;
    for child in children.of_group(group) {
        let spec = child.job.spec.clone().unwrap_or_default();
        let pods = child.job.status.clone().unwrap_or_default();
        match ending(child.job) {
            Some((Ending::Complete, _)) => status.succeeded += 1,
            Some((Ending::Failed, _)) => status.failed += 1,
            None => {
                let done = pods.ready.unwrap_or(0) + pods.succeeded.unwrap_or(0);
                status.ready += i32::from(spec.suspend != Some(true) && done >= at_once(&spec));
                status.active += i32::from(pods.active.unwrap_or(0) > 0);
                status.suspended += i32::from(spec.suspend == Some(true));
            }
        }
    }
    status
}
