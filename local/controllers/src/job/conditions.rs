//! The conditions of a job. Pure.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::events::Severity;

/// Something that people are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Happening {
    /// The job was suspended.
    Suspended,
    /// The job goes on.
    Resumed,
    /// The job reached its goal.
    Completed,
    /// The job failed, with reason and message.
    Failed(String, String),
}

impl Happening {
    /// The event: severity, reason, message.
    pub(crate) fn event(&self) -> (Severity, &str, &str) {
        match self {
            Self::Suspended => (Severity::Normal, "Suspended", "Job suspended"),
            Self::Resumed => (Severity::Normal, "Resumed", "Job resumed"),
            Self::Completed => (Severity::Normal, "Completed", "Job completed"),
            Self::Failed(reason, message) => (Severity::Warning, reason, message),
        }
    }
}

fn find<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

fn is_true(status: &JobStatus, type_: &str) -> bool {
    find(status, type_).is_some_and(|condition| condition.status == "True")
}

/// The job ended.
pub(crate) fn is_finished(status: &JobStatus) -> bool {
    is_true(status, "Complete") || is_true(status, "Failed")
}

/// The job's end is decided.
pub(crate) fn has_outcome(status: &JobStatus) -> bool {
    is_true(status, "SuccessCriteriaMet") || is_true(status, "FailureTarget")
}

/// When the job ended well, if it did.
pub(crate) fn completed_at(status: &JobStatus) -> Option<Timestamp> {
    let condition = find(status, "Complete").filter(|condition| condition.status == "True")?;
    let written = condition.last_transition_time.as_ref();
    status.completion_time.as_ref().or(written).map(|time| time.0)
}

/// When the job ended.
pub(crate) fn finish_time(status: &JobStatus) -> Option<Timestamp> {
    let condition = find(status, "Complete").or_else(|| find(status, "Failed"))?;
    condition.last_transition_time.as_ref().map(|time| time.0)
}

fn set(status: &mut JobStatus, type_: &str, value: &str, reason: &str, message: &str, now: Timestamp) {
    let condition = JobCondition {
        type_: type_.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|own| own.type_ == type_) {
        Some(own) => *own = condition,
        None => conditions.push(condition),
    }
}

/// Notes that the job is suspended; returns whether that is new.
pub(crate) fn suspend(status: &mut JobStatus, now: Timestamp) -> bool {
    let new = !is_true(status, "Suspended");
    if new {
        set(status, "Suspended", "True", "JobSuspended", "Job suspended", now);
    }
    new
}

/// Notes that the job is no longer suspended; returns whether it was.
pub(crate) fn resume(status: &mut JobStatus, now: Timestamp) -> bool {
    let was = is_true(status, "Suspended");
    if was {
        set(status, "Suspended", "False", "JobResumed", "Job resumed", now);
        status.start_time = Some(Time(now));
    }
    was
}

/// Notes that the job will fail once its pods have ended.
pub(crate) fn fail(status: &mut JobStatus, reason: &str, message: &str, now: Timestamp) {
    set(status, "FailureTarget", "True", reason, message, now);
}

/// Notes that the job will be complete once its pods have ended.
pub(crate) fn succeed(status: &mut JobStatus, reason: &str, message: &str, now: Timestamp) {
    set(status, "SuccessCriteriaMet", "True", reason, message, now);
}

/// Turns the decided outcome into the end.
pub(crate) fn finish(status: &mut JobStatus, now: Timestamp) -> Option<Happening> {
    let outcome = find(status, "FailureTarget").or_else(|| find(status, "SuccessCriteriaMet"))?.clone();
    let (reason, message) = (outcome.reason.unwrap_or_default(), outcome.message.unwrap_or_default());
    if outcome.type_ == "FailureTarget" {
        set(status, "Failed", "True", &reason, &message, now);
        return Some(Happening::Failed(reason, message));
    }
    set(status, "Complete", "True", &reason, &message, now);
    status.completion_time = Some(Time(now));
    Some(Happening::Completed)
}
