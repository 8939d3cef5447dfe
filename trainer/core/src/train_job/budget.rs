//! The budget of restarts, which outlives the JobSet that spends it.
//!
//! A JobSet counts its restarts in its status, and they would be forgotten with it. So the job remembers them, and a set
//! that is made anew knows how many there were before.

use muster_trainer_api::jobset::{JobSet, JobSetStatus};
use muster_trainer_api::train_job::TrainJob;
use muster_trainer_api::train_job::names::annotation::RESTART_COUNT;

use super::made::marked;

/// Restarts that the job remembers.
pub(super) fn remembered(job: &TrainJob) -> i32 {
    let marks = job.metadata.annotations.as_ref();
    count(marks.and_then(|marks| marks.get(RESTART_COUNT)))
}

/// Restarts that a set has counted, and those before it.
pub(super) fn spent(set: &JobSet) -> i32 {
    count(marked(set, RESTART_COUNT)).saturating_add(set.status.as_ref().map_or(0, charged))
}

/// Leaves a set that is to be made what is left of its budget after so many restarts.
pub(super) fn charge(set: &mut JobSet, spent: i32) {
    if spent == 0 {
        return;
    }
    let marks = set.metadata.annotations.get_or_insert_default();
    marks.insert(RESTART_COUNT.to_owned(), spent.to_string());
    let policy = set.spec.failure_policy.as_mut();
    if let Some(most) = policy.and_then(|policy| policy.max_restarts.as_mut()) {
        *most = most.saturating_sub(spent).max(0);
    }
}

/// What cannot be read counts as nothing.
fn count(mark: Option<&String>) -> i32 {
    mark.and_then(|count| count.parse().ok()).unwrap_or(0).max(0)
}

/// As the set itself compares with its limit, for that of its Jobs which has used most.
fn charged(status: &JobSetStatus) -> i32 {
    let of_jobs =
        status.replicated_jobs_status.iter().flat_map(|group| &group.job_restarts_count_towards_max);
    status.restarts_count_towards_max.saturating_add(of_jobs.copied().max().unwrap_or(0))
}
