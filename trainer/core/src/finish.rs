//! The end of a job, and what follows it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use muster_trainer_api::{CleanPodPolicy, ConditionType};

use crate::kind::ReplicaCounts;
use crate::members::Phase;
use crate::objects::object_name;
use crate::plan::{Counter, EventType};
use crate::planner::Planner;

/// Whether the job has run longer than it may; if not yet, the plan comes back in time.
pub(crate) fn is_overdue(planner: &mut Planner<'_>) -> bool {
    let Some(seconds) = planner.job.run_policy.active_deadline_seconds else { return false };
    let Some(start) = planner.status.start_time.as_ref().map(|time| time.0) else { return false };
    let deadline = start.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    if deadline > planner.now {
        planner.requeue_at(deadline);
        return false;
    }
    true
}

/// The job has reached its aim. Pods that still run have done their part.
pub(crate) fn succeed(
    planner: &mut Planner<'_>,
    counts: &BTreeMap<&'static str, ReplicaCounts>,
    message: String,
) {
    let counts = counts
        .iter()
        .map(|(type_, count)| {
            let succeeded = count.succeeded + count.active;
            (*type_, ReplicaCounts { succeeded, active: 0, ..*count })
        })
        .collect();
    planner.write_counts(&counts);
    end(planner, ConditionType::Succeeded, Counter::Successful, EventType::Normal, message);
}

/// The job has failed for good.
pub(crate) fn fail(planner: &mut Planner<'_>, counts: &BTreeMap<&'static str, ReplicaCounts>, why: String) {
    planner.write_counts(counts);
    let message = format!("{} {} has failed: {why}", planner.job.kind.name, planner.job.name());
    end(planner, ConditionType::Failed, Counter::Failed, EventType::Warning, message);
}

/// Writes the end; what is left is cleaned up once that is written, so that it is cleaned up as an ended job's.
fn end(planner: &mut Planner<'_>, type_: ConditionType, counter: Counter, event: EventType, message: String) {
    let suffix = type_.as_str().to_owned();
    planner.status.completion_time = Some(Time(planner.now));
    planner.set(type_, true, &suffix, message.clone());
    let reason = planner.job.reason(&suffix);
    planner.tell(event, &reason, message);
    planner.plan.counters.push(counter);
    planner.plan.requeue_after = None;
}

/// Removes what an ended job no longer needs, and at last the job itself.
pub(crate) fn clean_up(planner: &mut Planner<'_>) {
    let policy = planner.job.run_policy.clean_pod_policy.clone().unwrap_or(CleanPodPolicy::None);
    let retired: Vec<_> = planner.members.retired.clone();
    for pod in retired {
        planner.delete_pod(pod);
    }
    if matches!(policy, CleanPodPolicy::All | CleanPodPolicy::Running) {
        let mut kept = Vec::new();
        for member in planner.members.current.clone() {
            let ended = matches!(member.phase, Phase::Succeeded | Phase::Failed);
            if ended && policy == CleanPodPolicy::Running {
                kept.push((member.replica.type_.name, member.index));
            } else {
                planner.delete_pod(member.pod);
            }
        }
        for pod in planner.members.surplus.clone() {
            planner.delete_pod(pod);
        }
        let kept: Vec<_> =
            kept.into_iter().map(|(type_, index)| object_name(planner.job.name(), type_, index)).collect();
        planner.delete_services(|_| true);
        planner.plan.delete_services.retain(|service| !kept.contains(service));
    }
    planner.drop_groups();
    expire(planner);
}

/// Removes the job when its time to live is over.
pub(crate) fn expire(planner: &mut Planner<'_>) {
    planner.plan.delete_job = has_expired(planner);
}

/// Whether the time to live of an ended job is over; if not yet, the plan comes back in time.
pub(crate) fn has_expired(planner: &mut Planner<'_>) -> bool {
    let Some(seconds) = planner.job.run_policy.ttl_seconds_after_finished else { return false };
    if planner.job.is_suspended() {
        return false;
    }
    let Some(end) = ended_at(planner) else { return false };
    let expiry = end.checked_add(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MAX);
    if expiry > planner.now {
        planner.requeue_at(expiry);
        return false;
    }
    true
}

/// When the job ended, as well as can be told.
fn ended_at(planner: &Planner<'_>) -> Option<Timestamp> {
    let status = &planner.job.status;
    let ends = [ConditionType::Succeeded, ConditionType::Failed];
    let condition = ends.iter().find(|type_| status.is(type_)).and_then(|type_| status.condition(type_));
    let times = [
        status.completion_time.as_ref(),
        condition.and_then(|condition| condition.last_transition_time.as_ref()),
        planner.job.metadata.creation_timestamp.as_ref(),
    ];
    times.into_iter().flatten().next().map(|time| time.0)
}
