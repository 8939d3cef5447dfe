//! What follows from workers and launchers that fail.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use muster_trainer_api::ConditionType;

use super::framework::WORKER;
use super::planner::MpiPlanner;
use crate::failures::announce;
use crate::kind::ReplicaCounts;
use crate::members::{self, Cause, Member, Phase};

/// Longest message of a condition that is put together from others'.
const MESSAGE_LIMIT: usize = 1024;

/// Restarts or ends the job if workers have failed; whether the plan is complete with that.
pub(super) fn handle(planner: &mut MpiPlanner<'_>, counts: &BTreeMap<&'static str, ReplicaCounts>) -> bool {
    if let Some(evicted) = planner.state.evicted().filter(|_| !planner.job.requeue) {
        let message = format!("worker {} was evicted", members::name(evicted.pod));
        let message = match evicted.pod.status.as_ref().and_then(|status| status.message.as_deref()) {
            Some(why) => truncated(format!("{message}: {why}")),
            None => message,
        };
        planner.end(ConditionType::Failed, "MPIJobEvicted".to_owned(), message, counts);
        return true;
    }
    if planner.state.launcher_pods.iter().any(|pod| members::phase(pod) == Phase::Succeeded) {
        // The work is done, though the launcher's Job does not say so yet: workers may go.
        return false;
    }
    if planner.job.is_elastic() {
        return replace(planner, counts);
    }
    let Some((why, counted)) = loss(planner) else { return false };
    let limit = u64::try_from(planner.job.backoff_limit()).unwrap_or(0);
    if counted && let Some(message) = out_of_budget(planner, &why, limit) {
        planner.end(ConditionType::Failed, "MPIJobFailed".to_owned(), message, counts);
        return true;
    }
    let mut restarts = planner.base.restarts.clone();
    let launcher_failures = planner.state.launcher_failures();
    restarts.generation = planner.state.generation + 1;
    let started = planner.base.status.start_time.as_ref().map(|time| time.0);
    // The launcher's latest failure is mostly this one: its ranks are gone.
    let (code, free) =
        if counted { (launcher_failures.max(1), 0) } else { (launcher_failures.saturating_sub(1), 1) };
    restarts.count(code, free, planner.base.now, started, &planner.base.options.restart_backoff);
    let what = format!("the launcher and all {} workers", planner.job.workers());
    announce(&mut planner.base, &why, &what, &restarts);
    planner.base.remember(&restarts);
    planner.delete_workers(|_| true);
    if let Some(launcher) = planner.state.launcher {
        planner.delete_launcher(launcher);
    }
    planner.write_counts(&BTreeMap::new());
    true
}

/// What to say where one more restart for the job's own failures is too many.
fn out_of_budget(planner: &MpiPlanner<'_>, why: &str, limit: u64) -> Option<String> {
    let counted = planner.base.restarts.counted;
    let launcher_failures = planner.state.launcher_failures();
    (u64::from(counted) + u64::from(launcher_failures) >= limit).then(|| {
        format!(
            "{why}, and no restart is left: the backoff limit is {limit}, with {counted} counted restarts and {launcher_failures} failures of the launcher before"
        )
    })
}

/// What has become of a worker that no longer does its part, and whether its own code is to blame.
fn failure(worker: &Member<'_>, container: &str) -> Option<(String, bool)> {
    let name = members::name(worker.pod);
    Some(match worker.failure(container)? {
        Cause::Code { exit_code } => (format!("worker {name} failed with exit code {exit_code}"), true),
        Cause::Infrastructure { reason } => (format!("worker {name} was lost ({reason})"), false),
    })
}

/// A worker that no longer does its part, or a launcher that was taken, and whether its own code is to blame.
fn loss(planner: &MpiPlanner<'_>) -> Option<(String, bool)> {
    let container = planner.job.worker_container();
    let failures = planner.state.workers.iter().filter_map(|worker| failure(worker, &container));
    let (code, taken): (Vec<_>, Vec<_>) = failures.partition(|(_, counted)| *counted);
    // What the cluster took explains the ends of the others.
    let others = || vanished(planner).or_else(|| taken_launcher(planner)).map(|why| (why, false));
    taken.into_iter().next().or_else(others).or_else(|| code.into_iter().next())
}

/// A launcher that the cluster has taken, of a job that starts anew then.
fn taken_launcher(planner: &MpiPlanner<'_>) -> Option<String> {
    planner.state.current_launcher().filter(|_| planner.job.requeue)?;
    let ends = |pod: &&&Pod| members::phase(pod) == Phase::Failed || members::is_deleting(pod);
    planner.state.launcher_pods.iter().filter(ends).find_map(|pod| {
        let reason = members::infrastructure_reason(pod)?;
        Some(format!("launcher {} was lost ({reason})", members::name(pod)))
    })
}

/// A worker that ran and is gone without a trace.
fn vanished(planner: &MpiPlanner<'_>) -> Option<String> {
    // Once the restart is remembered the launcher is one of an earlier generation.
    planner.state.current_launcher()?;
    let seen = planner.job.job.status.replica_statuses.get(WORKER)?;
    let wanted = planner.job.workers();
    if seen.active + seen.succeeded < wanted {
        return None;
    }
    let is_there = |index: &i32| planner.state.workers.iter().any(|worker| worker.index == *index);
    let missing = (0..wanted).find(|index| !is_there(index))?;
    Some(format!("worker {} has vanished", planner.job.worker_name(missing)))
}

/// Replaces failed workers, of a launcher that copes with hosts that come and go; whether the plan is complete with that.
fn replace(planner: &mut MpiPlanner<'_>, counts: &BTreeMap<&'static str, ReplicaCounts>) -> bool {
    let container = planner.job.worker_container();
    let failed: Vec<(&Pod, String, bool)> = planner
        .state
        .workers
        .iter()
        .filter(|worker| worker.phase == Phase::Failed)
        .filter_map(|worker| failure(worker, &container).map(|(why, counted)| (worker.pod, why, counted)))
        .collect();
    let is_known = |pod: &Pod| planner.base.restarts.restarting_pods.contains(members::uid(pod));
    let new: Vec<_> = failed.iter().filter(|(pod, ..)| !is_known(pod)).collect();
    let blamed: Vec<_> = new.iter().filter(|(.., counted)| *counted).collect();
    if let Some((_, why, _)) = blamed.first()
        && let Some(limit) = planner.job.replacement_limit()
        && let Some(message) = out_of_budget(planner, why, limit)
    {
        planner.end(ConditionType::Failed, "MPIJobFailed".to_owned(), message, counts);
        return true;
    }
    if !new.is_empty() {
        let code = blamed.len() as u32;
        let free = new.len() as u32 - code;
        let mut restarts = planner.base.restarts.clone();
        restarts.restarting_pods = failed.iter().map(|(pod, ..)| members::uid(pod).to_owned()).collect();
        let started = planner.base.status.start_time.as_ref().map(|time| time.0);
        restarts.count(code, free, planner.base.now, started, &planner.base.options.restart_backoff);
        let why = new.iter().map(|(_, why, _)| why.as_str()).collect::<Vec<_>>().join(", ");
        announce(&mut planner.base, &why, if new.len() == 1 { "it" } else { "them" }, &restarts);
        planner.base.remember(&restarts);
        planner.base.restarts = restarts;
    }
    for (pod, ..) in failed {
        planner.base.delete_pod(pod);
    }
    false
}

/// Reason and message of a launcher that has failed for good.
pub(super) fn of_launcher(planner: &MpiPlanner<'_>) -> Option<(String, String)> {
    let end = planner.state.launcher_end("Failed")?;
    let name = planner.job.job.name();
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let mut reason = given(&end.reason).unwrap_or_else(|| "MPIJobFailed".to_owned());
    let mut message = given(&end.message).unwrap_or_else(|| format!("MPIJob {name} has failed"));
    if reason == "BackoffLimitExceeded"
        && let Some(last) = last_failed(&planner.state.launcher_pods)
        && let Some(status) = &last.status
    {
        if let Some(why) = given(&status.reason) {
            reason = format!("{reason}/{why}");
        }
        let exit = members::first_failure(last)
            .map(|code| format!("{} ended with exit code {code}", members::name(last)));
        if let Some(why) = given(&status.message).or(exit) {
            message = format!("{message}: {why}");
        }
    }
    Some((reason, truncated(message)))
}

fn last_failed<'a>(pods: &[&'a Pod]) -> Option<&'a Pod> {
    let failed = pods.iter().filter(|pod| members::phase(pod) == Phase::Failed);
    failed.max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0)).copied()
}

fn truncated(mut message: String) -> String {
    if message.len() > MESSAGE_LIMIT {
        message.truncate(message.floor_char_boundary(MESSAGE_LIMIT - 3));
        message.push_str("...");
    }
    message
}
