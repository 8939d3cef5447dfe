//! What the `PodGroup` of a job says that its pods wait for.

use jiff::{SignedDuration, Timestamp};
use muster_trainer_api::jobset::{JobSet, ReplicatedJob, ReplicatedJobStatus};
use muster_trainer_api::train_job::label;
use serde_json::Value;

use super::plan::Waiting;
use super::render::step;
use crate::{gang, jobset};

/// How long a new group may be silent: its scheduler has other things to do, too.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// Whether a group has no room yet that pods of the set ask for.
pub(super) fn is_pending(group: &Value, set: &JobSet) -> bool {
    set.spec.suspend != Some(true)
        && !matches!(phase(group), "Running" | "Completed" | "Finished" | "Failed")
        && are_members_wanted(set)
}

/// What such a group waits for, as far as it says.
pub(super) fn waiting(group: &Value, now: Timestamp) -> Option<Waiting> {
    let name = group["metadata"]["name"].as_str().unwrap_or_default();
    let is_volcano =
        group["apiVersion"].as_str().is_some_and(|version| version.starts_with("scheduling.volcano.sh/"));
    let message = match unschedulable(group) {
        Some(said) if is_volcano => gang::volcano_waits(name, group, Some(said))
            .or_else(|| Some(format!("PodGroup {name} has no room for all of its pods: {said}"))),
        _ if is_new(group, now) => None,
        _ if is_volcano => gang::volcano_waits(name, group, None),
        _ => coscheduling_waits(name, group),
    }?;
    Some(Waiting { reason: "PodGroupPending".to_owned(), message })
}

fn phase(group: &Value) -> &str {
    group["status"]["phase"].as_str().unwrap_or_default()
}

/// Nodes that come when data and models are there have nothing to wait for before.
fn are_members_wanted(set: &JobSet) -> bool {
    let known = set.status.as_ref().map_or(&[][..], |status| &status.replicated_jobs_status);
    let groups = &set.spec.replicated_jobs;
    let status_of = |group: &ReplicatedJob| known.iter().find(|status| status.name == group.name).cloned();
    let statuses: Vec<ReplicatedJobStatus> =
        groups.iter().map(|group| status_of(group).unwrap_or_default()).collect();
    let is_member = |group: &ReplicatedJob| step(group).is_none_or(|step| step == label::STEP_TRAINER);
    let mut members = groups.iter().enumerate().filter(|(_, group)| is_member(group));
    members.any(|(place, _)| jobset::may_start(&set.spec, place, &statuses))
}

/// What Volcano said last, if it was that there is no room.
fn unschedulable(group: &Value) -> Option<&str> {
    let conditions = group["status"]["conditions"].as_array()?;
    let latest = conditions
        .iter()
        .max_by_key(|condition| condition["lastTransitionTime"].as_str().unwrap_or_default())?;
    (latest["type"] == "Unschedulable" && latest["status"] == "True")
        .then(|| latest["message"].as_str().unwrap_or_default())
}

/// The plugin gives no reasons. A group without a phase is one that nobody keeps, and says nothing of its pods.
fn coscheduling_waits(name: &str, group: &Value) -> Option<String> {
    let members = &group["spec"]["minMember"];
    match phase(group) {
        "Pending" => {
            Some(format!("PodGroup {name} is pending: there is no room for its {members} pods together"))
        }
        "Unknown" => {
            Some(format!("PodGroup {name} has no room for all of its pods, of which it needs {members}"))
        }
        _ => None,
    }
}

fn is_new(group: &Value, now: Timestamp) -> bool {
    let created = group["metadata"]["creationTimestamp"].as_str();
    let created = created.and_then(|created| created.parse::<Timestamp>().ok());
    created.is_some_and(|created| now.duration_since(created) < PATIENCE)
}
