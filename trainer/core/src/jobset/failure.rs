//! What the failure of a Job means for its set.

use muster_trainer_api::jobset::{
    FailureAction, FailurePolicyRule, JobSet, JobSetStatus, ReplicatedJob, reason,
};
use regex::Regex;

use super::children::{Child, Children, Ending, ended_at, ending, replicas};

/// The set fails, or goes on after this change of its counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) fails: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// The Job that failed first.
pub(super) fn first_failed<'a>(children: &Children<'a>) -> Option<Child<'a>> {
    let failed = children.current.iter().filter_map(|child| match ending(child.job) {
        Some((Ending::Failed, condition)) => Some((ended_at(condition), child)),
        _ => None,
    });
    failed.min_by_key(|(at, child)| (*at, child.group, child.index)).map(|(_, child)| *child)
}

/// Decides what the failure of a Job means, and counts a restart in `status`.
pub(super) fn decide(set: &JobSet, child: Child<'_>, status: &mut JobSetStatus) -> Decision {
    let name = child.job.metadata.name.as_deref().unwrap_or_default();
    let Some(policy) = &set.spec.failure_policy else {
        let why = message_of(child);
        return Decision {
            fails: true,
            reason: reason::FAILED_JOBS,
            message: format!("job {name} failed{why}, and there is no failure policy"),
        };
    };
    let group = &set.spec.replicated_jobs[child.group];
    let rule = policy.rules.iter().find(|rule| matches(rule, group, child));
    let action = rule.map_or(FailureAction::RestartJobSet, |rule| rule.action);
    let by_rule = rule.map(|rule| format!(" (rule {})", rule.name)).unwrap_or_default();
    let why = message_of(child);
    let most = policy.max_restarts.unwrap_or(0);
    let over_budget = |used: i32| {
        (used >= most).then(|| Decision {
            fails: true,
            reason: reason::REACHED_MAX_RESTARTS,
            message: format!("job {name} failed{why}, after {used} of at most {most} restarts"),
        })
    };
    let restarted = |reason: &'static str, what: &str| Decision {
        fails: false,
        reason,
        message: format!("job {name} failed{why}: {what}{by_rule}"),
    };
    match action {
        FailureAction::FailJobSet => Decision {
            fails: true,
            reason: reason::FAIL_JOB_SET,
            message: format!("job {name} failed{why}, which ends the set{by_rule}"),
        },
        FailureAction::RestartJobSet => {
            over_budget(charged(status, group, child.index)).unwrap_or_else(|| {
                status.restarts += 1;
                status.restarts_count_towards_max += 1;
                restarted(reason::RESTART_JOB_SET, "all jobs are recreated")
            })
        }
        FailureAction::RestartJobSetAndIgnoreMaxRestarts => {
            status.restarts += 1;
            restarted(reason::RESTART_JOB_SET_FREE, "all jobs are recreated at no charge")
        }
        FailureAction::RestartJob => over_budget(charged(status, group, child.index)).unwrap_or_else(|| {
            count(status, group, child.index, true);
            restarted(reason::RESTART_JOB, "it is recreated")
        }),
        FailureAction::RestartJobAndIgnoreMaxRestarts => {
            count(status, group, child.index, false);
            restarted(reason::RESTART_JOB_FREE, "it is recreated at no charge")
        }
    }
}

/// What a Job has used of the budget: the restarts of the set, and those of its own.
fn charged(status: &JobSetStatus, group: &ReplicatedJob, index: i32) -> i32 {
    let of_group = status.replicated_jobs_status.iter().find(|of_group| of_group.name == group.name);
    let own = of_group.and_then(|of_group| of_group.job_restarts_count_towards_max.get(index as usize));
    status.restarts_count_towards_max + own.copied().unwrap_or(0)
}

/// Counts the restart of one Job.
fn count(status: &mut JobSetStatus, group: &ReplicatedJob, index: i32, is_charged: bool) {
    let of_group = status.replicated_jobs_status.iter_mut().find(|of_group| of_group.name == group.name);
    let Some(of_group) = of_group else { return };
    let jobs = replicas(group) as usize;
    of_group.job_restarts.resize(jobs, 0);
    of_group.job_restarts_count_towards_max.resize(jobs, 0);
    if let Some(restarts) = of_group.job_restarts.get_mut(index as usize) {
        *restarts += 1;
    }
    if let Some(restarts) = of_group.job_restarts_count_towards_max.get_mut(index as usize) {
        *restarts += i32::from(is_charged);
    }
}

fn message_of(child: Child<'_>) -> String {
    let condition = ending(child.job).map(|(_, condition)| condition);
    match condition.and_then(|condition| condition.reason.as_deref()) {
        Some(reason) => format!(" ({reason})"),
        None => String::new(),
    }
}

fn matches(rule: &FailurePolicyRule, group: &ReplicatedJob, child: Child<'_>) -> bool {
    let condition = ending(child.job).map(|(_, condition)| condition);
    let reason = condition.and_then(|condition| condition.reason.as_deref()).unwrap_or_default();
    let message = condition.and_then(|condition| condition.message.as_deref()).unwrap_or_default();
    let is_target =
        rule.target_replicated_jobs.is_empty() || rule.target_replicated_jobs.contains(&group.name);
    let has_reason = rule.on_job_failure_reasons.is_empty()
        || rule.on_job_failure_reasons.iter().any(|wanted| wanted == reason);
    // A set with a broken pattern is not valid and never comes here.
    let has_message = rule.on_job_failure_message_patterns.is_empty()
        || rule
            .on_job_failure_message_patterns
            .iter()
            .any(|pattern| Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(message)));
    is_target && has_reason && has_message
}
