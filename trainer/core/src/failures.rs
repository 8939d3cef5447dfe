//! What follows from failed and lost pods.

use std::collections::BTreeMap;

use muster_trainer_api::{ConditionType, RestartPolicy};

use crate::finish;
use crate::job::RestartScope;
use crate::kind::{Loss, ReplicaCounts};
use crate::members::{self, Cause, Member, Phase};
use crate::plan::{Counter, EventType};
use crate::planner::Planner;

/// A pod that no longer does its part.
struct Failure<'a> {
    member: Member<'a>,
    cause: Cause,
}

impl Failure<'_> {
    fn describe(&self) -> String {
        let name = members::name(self.member.pod);
        match &self.cause {
            Cause::Code { exit_code } => format!("pod {name} failed with exit code {exit_code}"),
            Cause::Infrastructure { reason } => format!("pod {name} was lost ({reason})"),
        }
    }

    fn is_code(&self) -> bool {
        matches!(self.cause, Cause::Code { .. })
    }

    /// Whether the replica's restart policy makes this the end of the job. That takes a failure of its own code: one of
    /// a pod that only failed for want of a peer says nothing.
    fn is_final(&self, lost_a_peer: bool) -> bool {
        let Cause::Code { exit_code } = self.cause else { return false };
        let ends = match self.member.replica.restart_policy {
            RestartPolicy::Never => true,
            RestartPolicy::ExitCode => exit_code < 128,
            _ => false,
        };
        ends && !lost_a_peer
    }
}

/// Restarts or ends the job if pods have failed; whether the plan is complete with that.
pub(crate) fn handle(planner: &mut Planner<'_>, counts: &BTreeMap<&'static str, ReplicaCounts>) -> bool {
    let container = planner.job.kind.container;
    let failures: Vec<_> = planner
        .members
        .current
        .iter()
        .filter_map(|member| Some(Failure { member: member.clone(), cause: member.failure(container)? }))
        .collect();
    let scope = planner.job.restart_scope();
    let lost = match scope {
        RestartScope::Gang => lost_peer(planner, &failures),
        RestartScope::Pod => None,
    };
    let (for_good, failures): (Vec<_>, Vec<_>) =
        failures.into_iter().partition(|failure| failure.is_final(lost.is_some()));
    tell_exit_codes(planner, for_good.iter().chain(&failures));
    if let Some(last_straw) = for_good.iter().find(|failure| ends_job(planner, failure, &for_good)) {
        let policy = last_straw.member.replica.restart_policy.as_str();
        let why = format!("{} and its restart policy is {policy}", last_straw.describe());
        finish::fail(planner, counts, why);
        return true;
    }
    planner.given_up = for_good.iter().map(|failure| members::uid(failure.member.pod).to_owned()).collect();
    let is_complete = match scope {
        RestartScope::Gang => handle_gang(planner, &failures, lost, counts),
        RestartScope::Pod => handle_pods(planner, &failures, counts),
    };
    if !is_complete {
        remember_given_up(planner);
    }
    is_complete
}

/// Pods that the job does without stay as they are, and are told of once.
fn remember_given_up(planner: &mut Planner<'_>) {
    if planner.given_up.is_subset(&planner.restarts.restarting_pods) {
        return;
    }
    let mut restarts = planner.restarts.clone();
    restarts.restarting_pods.extend(planner.given_up.iter().cloned());
    planner.plan.annotations.extend(restarts.changes(&planner.restarts));
    planner.restarts = restarts;
}

/// The loss of a pod that is nobody's fault, if there is one. The ends of its peers are then its consequence: a
/// rank that loses a peer mostly ends with an error.
fn lost_peer(planner: &Planner<'_>, failures: &[Failure<'_>]) -> Option<String> {
    let lost = failures.iter().find(|failure| !failure.is_code());
    lost.map(Failure::describe).or_else(|| vanished(planner))
}

/// Whether the job cannot do without a pod that has failed for good, with these others gone too.
fn ends_job(planner: &Planner<'_>, failure: &Failure<'_>, for_good: &[Failure<'_>]) -> bool {
    let replica = failure.member.replica;
    match planner.job.framework.loss(planner.job, replica) {
        Loss::Fatal => true,
        Loss::Borne => false,
        Loss::BorneByOthers => {
            let gone = for_good.iter().filter(|other| other.member.replica.type_ == replica.type_).count();
            let of_type = |member: &&Member<'_>| {
                member.replica.type_ == replica.type_ && member.phase == Phase::Succeeded
            };
            let done = planner.members.current.iter().filter(of_type).count();
            usize::try_from(replica.count).is_ok_and(|wanted| gone + done >= wanted)
        }
    }
}

fn tell_exit_codes<'f, 'p: 'f>(planner: &mut Planner<'_>, failures: impl Iterator<Item = &'f Failure<'p>>) {
    for failure in failures {
        if let Cause::Code { exit_code } = failure.cause
            && !planner.restarts.restarting_pods.contains(members::uid(failure.member.pod))
        {
            let name = members::name(failure.member.pod);
            let message = format!("pod {}.{name} exited with code {exit_code}", planner.job.namespace());
            planner.tell(EventType::Normal, "ExitedWithCode", message);
        }
    }
}

/// Whether one more restart for the job's own failures is too many.
fn is_budget_spent(planner: &Planner<'_>) -> bool {
    let limit = planner.job.run_policy.backoff_limit;
    limit.is_some_and(|limit| i64::from(planner.restarts.counted) >= i64::from(limit))
}

fn out_of_budget(planner: &Planner<'_>, what: &str) -> String {
    format!(
        "{what} after {} counted restarts, and its backoff limit is {}",
        planner.restarts.counted,
        planner.job.run_policy.backoff_limit.unwrap_or_default()
    )
}

fn handle_gang(
    planner: &mut Planner<'_>,
    failures: &[Failure<'_>],
    lost: Option<String>,
    counts: &BTreeMap<&'static str, ReplicaCounts>,
) -> bool {
    let (why, counted) = if let Some(why) = lost {
        (why, false)
    } else if let Some(blamed) = failures.first() {
        (blamed.describe(), true)
    } else if let Some(why) = resized(planner) {
        (why, false)
    } else {
        return false;
    };
    if counted && is_budget_spent(planner) {
        let why = out_of_budget(planner, &why);
        finish::fail(planner, counts, why);
        return true;
    }
    let mut restarts = planner.restarts.clone();
    restarts.generation = planner.members.generation + 1;
    let started = planner.status.start_time.as_ref().map(|time| time.0);
    let (code, free) = if counted { (1, 0) } else { (0, 1) };
    restarts.count(code, free, planner.now, started, &planner.options.restart_backoff);
    let what = format!("all {} pods", planner.job.total());
    announce(planner, &why, &what, &restarts);
    planner.remember(&restarts);
    planner.delete_all_pods();
    planner.write_counts(&BTreeMap::new());
    true
}

/// A pod that ran and is gone without a trace, while others of its generation are still there.
fn vanished(planner: &Planner<'_>) -> Option<String> {
    if planner.members.current.is_empty() {
        return None;
    }
    planner.job.replicas.iter().find_map(|replica| {
        let seen = planner.job.status.replica_statuses.get(replica.type_.name)?;
        let all_were_there = seen.active + seen.succeeded >= replica.count;
        let missing = (0..replica.count).find(|index| planner.members.find(replica, *index).is_none())?;
        let name = crate::objects::object_name(planner.job.name(), replica.type_.name, missing);
        all_were_there.then(|| format!("pod {name} has vanished"))
    })
}

fn resized(planner: &Planner<'_>) -> Option<String> {
    let total = planner.job.total();
    let sizes = planner.members.current.iter().filter_map(|member| Planner::size_of(member.pod));
    let before = sizes.into_iter().find(|size| *size != total)?;
    Some(format!("the job is resized from {before} to {total} pods"))
}

fn handle_pods(
    planner: &mut Planner<'_>,
    failures: &[Failure<'_>],
    counts: &BTreeMap<&'static str, ReplicaCounts>,
) -> bool {
    if let Some(why) = container_restarts_exceed_limit(planner) {
        finish::fail(planner, counts, why);
        return true;
    }
    let is_known =
        |failure: &&Failure<'_>| planner.restarts.restarting_pods.contains(members::uid(failure.member.pod));
    // A pod that somebody deletes is replaced when it is gone; only failed ones are ours to delete.
    let (known, new): (Vec<_>, Vec<_>) =
        failures.iter().filter(|failure| failure.member.phase == Phase::Failed).partition(is_known);
    let code = new.iter().filter(|failure| failure.is_code()).count() as u32;
    if code > 0
        && is_budget_spent(planner)
        && let Some(blamed) = new.iter().find(|failure| failure.is_code())
    {
        let why = out_of_budget(planner, &blamed.describe());
        finish::fail(planner, counts, why);
        return true;
    }
    if !new.is_empty() {
        let mut restarts = planner.restarts.clone();
        let free = new.len() as u32 - code;
        let started = planner.status.start_time.as_ref().map(|time| time.0);
        restarts.count(code, free, planner.now, started, &planner.options.restart_backoff);
        let restarting = failures.iter().filter(|failure| failure.member.phase == Phase::Failed);
        restarts.restarting_pods =
            restarting.map(|failure| members::uid(failure.member.pod).to_owned()).collect();
        let why = new.iter().map(|failure| failure.describe()).collect::<Vec<_>>().join(", ");
        announce(planner, &why, if new.len() == 1 { "it" } else { "them" }, &restarts);
        planner.remember(&restarts);
        planner.restarts = restarts;
    }
    for failure in known.into_iter().chain(new) {
        planner.delete_pod(failure.member.pod);
    }
    false
}

/// The kubelet restarts containers in place; these restarts spend the budget too.
fn container_restarts_exceed_limit(planner: &Planner<'_>) -> Option<String> {
    let limit = planner.job.run_policy.backoff_limit?;
    let running = planner.members.current.iter().filter(|member| {
        member.phase == Phase::Running && member.replica.restart_policy != RestartPolicy::Never
    });
    let in_place: i64 = running.map(|member| i64::from(member.container_restarts())).sum();
    let total = in_place + i64::from(planner.restarts.counted);
    (in_place > 0 && total >= i64::from(limit.max(1)))
        .then(|| format!("its containers were restarted {total} times, and its backoff limit is {limit}"))
}

pub(crate) fn announce(
    planner: &mut Planner<'_>,
    why: &str,
    what: &str,
    restarts: &crate::restart::RestartState,
) {
    let budget = match planner.job.run_policy.backoff_limit {
        Some(limit) => format!("{} of at most {limit} counted restarts", restarts.counted),
        None => format!("{} counted restarts", restarts.counted),
    };
    let message = format!(
        "{} {} is restarting: {why}; replacing {what} ({budget}, {} free)",
        planner.job.kind.name,
        planner.job.name(),
        restarts.free
    );
    // A second restart in a row has the same reason, and would otherwise not be told.
    planner.status.conditions.retain(|condition| condition.type_ != ConditionType::Restarting);
    planner.set(ConditionType::Restarting, true, "Restarting", message.clone());
    let reason = planner.job.reason("Restarting");
    planner.tell(EventType::Warning, &reason, message);
    planner.plan.counters.push(Counter::Restarted);
}
