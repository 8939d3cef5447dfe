//! How the pods of a job are scheduled as a gang.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodSpec;
use muster_trainer_api::jobset::{JobSetSpec, ReplicatedJob};
use muster_trainer_api::train_job::{PodGroupPolicy, label};
use serde_json::{Value, json};

use super::elastic;
use super::render::{Draft, metadata, pods, step};
use crate::gang::GangScheduler;
use crate::{jobset, quantity};

/// Makes the pods a gang, and its `PodGroup` where the runtime asks for one; else the gang is Muster's.
///
/// What only fetches data and models is no member: it is gone before the nodes come.
pub(super) fn complete(
    draft: &mut Draft<'_>,
    policy: Option<&PodGroupPolicy>,
    scheduler: &GangScheduler,
) -> Option<Value> {
    let policy = policy.filter(|policy| policy.coscheduling.is_some() || policy.volcano.is_some());
    let Some(policy) = policy else {
        if *scheduler == GangScheduler::Muster {
            elastic::name_gang(draft);
            let spec = draft.spec.clone();
            for group in &mut draft.spec.replicated_jobs {
                jobset::join_gang(&spec, pods(group));
            }
        }
        return None;
    };
    let name = draft.name().to_owned();
    let mut group = if let Some(coscheduling) = &policy.coscheduling {
        json!({
            "apiVersion": "scheduling.x-k8s.io/v1alpha1",
            "spec": {"scheduleTimeoutSeconds": coscheduling.schedule_timeout_seconds.unwrap_or(60)},
        })
    } else {
        volcano(draft, policy)
    };
    let (all, resources) = members(draft);
    // Nodes that may be missing ask for nothing before they come.
    let members = (all - draft.may_be_missing).max(1);
    group["kind"] = json!("PodGroup");
    group["metadata"] = json!(metadata(draft.job, name.clone()));
    group["spec"]["minMember"] = json!(members);
    if !resources.is_empty() {
        group["spec"]["minResources"] = json!(resources);
    }
    let is_volcano = policy.coscheduling.is_none();
    for member in draft.spec.replicated_jobs.iter_mut().filter(|group| is_member(group)) {
        let marks = pods(member).metadata.get_or_insert_default();
        if is_volcano {
            let annotations = marks.annotations.get_or_insert_default();
            annotations.insert("scheduling.k8s.io/group-name".to_owned(), name.clone());
        } else {
            let labels = marks.labels.get_or_insert_default();
            labels.insert("scheduling.x-k8s.io/pod-group".to_owned(), name.clone());
        }
    }
    Some(group)
}

fn is_member(group: &ReplicatedJob) -> bool {
    step(group).is_none_or(|step| step == label::STEP_TRAINER)
}

/// The members that start together. One that waits for others has no pods until those run: a group that needs it, too,
/// would never be placed.
fn first_members(spec: &JobSetSpec) -> impl Iterator<Item = &ReplicatedJob> {
    let members = || spec.replicated_jobs.iter().filter(|group| is_member(group));
    let most = if jobset::is_in_order(spec) { 1 } else { usize::MAX };
    let waits = move |group: &ReplicatedJob| {
        group.depends_on.iter().any(|other| members().any(|member| member.name == other.name))
    };
    members().filter(move |group| !waits(group)).take(most)
}

/// How many pods start together, and what they ask for together.
fn members(
    draft: &Draft<'_>,
) -> (i32, BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>) {
    let sets: Vec<(PodSpec, i32)> = first_members(&draft.spec)
        .map(|group| {
            let spec = group.template.spec.clone().unwrap_or_default();
            let at_once = spec.parallelism.unwrap_or(1).min(spec.completions.unwrap_or(i32::MAX));
            (spec.template.spec.unwrap_or_default(), at_once * group.replicas.unwrap_or(1))
        })
        .collect();
    let count = sets.iter().map(|(_, count)| count).sum();
    (
        count,
        quantity::sum_of_pods(
            sets.iter().map(|(pod, count)| (pod, *count)),
            (count - draft.may_be_missing).max(1),
        ),
    )
}

fn volcano(draft: &Draft<'_>, policy: &PodGroupPolicy) -> Value {
    let mut group = json!({"apiVersion": "scheduling.volcano.sh/v1beta1", "spec": {}});
    let annotations = draft.job.metadata.annotations.as_ref();
    if let Some(queue) = annotations.and_then(|marks| marks.get("scheduling.volcano.sh/queue-name")) {
        group["spec"]["queue"] = json!(queue);
    }
    let mut specs = draft.spec.replicated_jobs.iter().filter(|group| is_member(group)).filter_map(|group| {
        group.template.spec.as_ref()?.template.spec.as_ref()?.priority_class_name.clone()
    });
    if let Some(class) = specs.next() {
        group["spec"]["priorityClassName"] = json!(class);
    }
    if let Some(topology) = policy.volcano.as_ref().and_then(|volcano| volcano.network_topology.as_ref()) {
        group["spec"]["networkTopology"] = json!({
            "mode": topology.mode.as_deref().unwrap_or("hard"),
            "highestTierAllowed": topology.highest_tier_allowed.unwrap_or(1),
        });
    }
    group
}
