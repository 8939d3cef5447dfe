//! How conditions follow each other in a job's status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use muster_trainer_api::{ConditionType, JobCondition, JobStatus};

/// Sets a condition, at the end of the list, where `kubectl get` reads the job's state.
///
/// Nothing changes a failed job, and a condition with the same status and reason is left as it is. `Running`
/// and `Restarting` exclude each other; the end of the job turns `Running` to `False`.
pub(crate) fn set(
    status: &mut JobStatus,
    type_: ConditionType,
    value: bool,
    reason: String,
    message: String,
    now: Timestamp,
) -> bool {
    if status.is(&ConditionType::Failed) {
        return false;
    }
    let value_text = if value { "True" } else { "False" };
    let current = status.condition(&type_);
    if current.is_some_and(|current| {
        current.status == value_text && current.reason.as_deref() == Some(reason.as_str())
    }) {
        return false;
    }
    let last_transition_time = current
        .filter(|current| current.status == value_text)
        .and_then(|current| current.last_transition_time.clone())
        .unwrap_or(Time(now));
    let excluded = match type_ {
        ConditionType::Running => Some(ConditionType::Restarting),
        ConditionType::Restarting => Some(ConditionType::Running),
        _ => None,
    };
    status.conditions.retain(|other| other.type_ != type_ && Some(&other.type_) != excluded.as_ref());
    if matches!(type_, ConditionType::Succeeded | ConditionType::Failed) && value {
        for running in &mut status.conditions {
            if running.type_ == ConditionType::Running && running.status == "True" {
                "False".clone_into(&mut running.status);
                running.last_transition_time = Some(Time(now));
                running.last_update_time = Some(Time(now));
            }
        }
    }
    status.conditions.push(JobCondition {
        type_,
        status: value_text.to_owned(),
        reason: Some(reason),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(last_transition_time),
    });
    true
}

/// Changes what a condition says without changing what it means, nor its place; whether that was a change.
pub(crate) fn explain(status: &mut JobStatus, type_: &ConditionType, message: &str, now: Timestamp) -> bool {
    let condition = status.conditions.iter_mut().find(|condition| condition.type_ == *type_);
    let Some(condition) = condition.filter(|condition| condition.message.as_deref() != Some(message)) else {
        return false;
    };
    condition.message = Some(message.to_owned());
    condition.last_update_time = Some(Time(now));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(status: &mut JobStatus, type_: ConditionType, value: bool, second: i64) -> bool {
        let reason = format!("Job{}", type_.as_str());
        set(status, type_, value, reason, String::new(), Timestamp::from_second(second).unwrap())
    }

    fn states(status: &JobStatus) -> Vec<String> {
        status.conditions.iter().map(|c| format!("{}={}", c.type_.as_str(), c.status)).collect()
    }

    #[test]
    fn running_and_restarting_exclude_each_other() {
        let mut status = JobStatus::default();
        apply(&mut status, ConditionType::Created, true, 1);
        apply(&mut status, ConditionType::Running, true, 2);
        apply(&mut status, ConditionType::Restarting, true, 3);
        assert_eq!(states(&status), ["Created=True", "Restarting=True"]);
        apply(&mut status, ConditionType::Running, true, 4);
        assert_eq!(states(&status), ["Created=True", "Running=True"]);
    }

    #[test]
    fn the_end_turns_running_off_in_place() {
        let mut status = JobStatus::default();
        apply(&mut status, ConditionType::Running, true, 1);
        apply(&mut status, ConditionType::Succeeded, true, 2);
        assert_eq!(states(&status), ["Running=False", "Succeeded=True"]);
    }

    #[test]
    fn nothing_changes_a_failed_job() {
        let mut status = JobStatus::default();
        apply(&mut status, ConditionType::Failed, true, 1);
        let before = status.clone();
        assert!(!apply(&mut status, ConditionType::Running, true, 2));
        assert_eq!(status, before);
    }

    #[test]
    fn the_same_status_and_reason_is_no_change() {
        let mut status = JobStatus::default();
        assert!(apply(&mut status, ConditionType::Running, true, 1));
        assert!(!apply(&mut status, ConditionType::Running, true, 2));
        assert_eq!(status.conditions[0].last_update_time, Some(Time(Timestamp::from_second(1).unwrap())));
    }

    #[test]
    fn a_new_reason_keeps_the_transition_time() {
        let mut status = JobStatus::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        set(&mut status, ConditionType::Suspended, false, "A".into(), String::new(), at(1));
        set(&mut status, ConditionType::Suspended, false, "B".into(), String::new(), at(2));
        assert_eq!(status.conditions[0].last_transition_time, Some(Time(at(1))));
        assert_eq!(status.conditions[0].last_update_time, Some(Time(at(2))));
    }
}
