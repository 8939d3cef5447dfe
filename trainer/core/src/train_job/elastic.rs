//! Jobs that start, and go on, with fewer nodes than they could have.
//!
//! Kubeflow's API has no field for it yet (kubeflow/trainer#2903), so the job says it in an annotation.

use k8s_openapi::api::batch::v1::{JobSpec, SuccessPolicy, SuccessPolicyRule};
use k8s_openapi::api::core::v1::EnvVar;
use muster_scheduler_api::annotations;
use muster_trainer_api::jobset::JobSet;
use muster_trainer_api::train_job::names::TRAINER_PORT;
use muster_trainer_api::train_job::{MlPolicy, TrainJob, annotation};

use super::render::{DISRUPTED, Draft, is_trainer, job_spec, pods};
use super::{env, torchtune};
use crate::jobset;

/// torchrun counts what fails because a node was lost as it counts failures of the script.
const RESTARTS: (&str, &str) = ("PET_MAX_RESTARTS", "10");
/// How many pods may fail or be deleted by hand, where the runtime allows none or does not say.
const REPLACED_PODS: i32 = 10;

/// With how many nodes the job goes on, if not with all of them.
///
/// # Errors
/// Why it cannot be so.
pub(super) fn fewest_nodes(job: &TrainJob, policy: &MlPolicy, nodes: i32) -> Result<Option<i32>, String> {
    let annotations = job.metadata.annotations.as_ref();
    let Some(said) = annotations.and_then(|annotations| annotations.get(annotation::MIN_NODES)) else {
        return Ok(None);
    };
    let fewest = said.parse().ok().filter(|fewest| (1..=nodes).contains(fewest));
    let fewest = fewest.ok_or_else(|| {
        format!("must be a number of nodes from 1 to the job's numNodes, which is {nodes}, not `{said}`")
    })?;
    let command = job.spec.trainer.as_ref().map(|trainer| trainer.command.as_slice()).unwrap_or_default();
    if policy.torch.is_none() || torchtune::is_command(command) {
        return Err("needs a runtime with mlPolicy.torch and a program that torchrun starts".to_owned());
    }
    Ok((fewest < nodes).then_some(fewest))
}

/// How many nodes a job can do without whose JobSet exists: what torchrun was told when that was made.
pub(super) fn may_be_missing(existing: &JobSet) -> i32 {
    let groups = existing.spec.replicated_jobs.iter().filter(|group| is_trainer(group));
    let pods = groups.filter_map(|group| group.template.spec.as_ref()?.template.spec.as_ref());
    let variables = pods.flat_map(|pod| &pod.containers).flat_map(|container| container.env.iter().flatten());
    let mut said = variables.filter(|variable| variable.name == "PET_NNODES");
    let missing = said.find_map(|variable| {
        let (fewest, most) = variable.value.as_ref()?.split_once(':')?;
        Some(most.parse::<i32>().ok()? - fewest.parse::<i32>().ok()?)
    });
    missing.unwrap_or(0)
}

/// By which nodes that come and go find each other, unless the job says it.
pub(super) fn rendezvous(draft: &Draft<'_>) -> Vec<EnvVar> {
    let own = draft.trainer().env;
    let mut variables = vec![
        env::value("PET_RDZV_BACKEND", "c10d"),
        env::value("PET_RDZV_ENDPOINT", format!("{}:{TRAINER_PORT}", draft.meeting())),
        env::value("PET_RDZV_ID", draft.name()),
    ];
    variables.retain(|variable| own.iter().all(|other| other.name != variable.name));
    variables
}

/// Lets the nodes outlive each other: torchrun gathers those that are left, and the job has ended well when the node has
/// at which they meet, whether or not the others ever came.
pub(super) fn complete(draft: &mut Draft<'_>) {
    if draft.fewest_nodes.is_none() {
        return;
    }
    for node in draft.trainers() {
        let said = node.env.iter().flatten().any(|variable| variable.name == RESTARTS.0);
        if !said {
            env::set(&mut node.env, &[env::value(RESTARTS.0, RESTARTS.1)]);
        }
    }
    let first = SuccessPolicyRule { succeeded_indexes: Some("0".to_owned()), succeeded_count: None };
    for group in draft.spec.replicated_jobs.iter_mut().filter(|group| is_trainer(group)) {
        let spec = job_spec(group);
        if spec.completion_mode.as_deref() != Some("NonIndexed") {
            spec.success_policy.get_or_insert_with(|| SuccessPolicy { rules: vec![first.clone()] });
        }
        replace_lost_pods(spec);
    }
}

/// A lost pod is replaced while the others go on, whatever it means for nodes that need each other.
fn replace_lost_pods(spec: &mut JobSpec) {
    let rules = spec.pod_failure_policy.iter_mut().flat_map(|policy| &mut policy.rules);
    for rule in rules.filter(|rule| rule.action == "FailJob") {
        let mut conditions = rule.on_pod_conditions.iter().flatten();
        if conditions.any(|condition| condition.type_ == DISRUPTED) {
            "Ignore".clone_into(&mut rule.action);
        }
    }
    if spec.backoff_limit.is_none_or(|limit| limit == 0) {
        spec.backoff_limit = Some(REPLACED_PODS);
    }
}

/// Makes the nodes a gang of Muster's scheduler that starts with the fewest. It must be named: a gang that the JobSet
/// describes needs all of its pods.
pub(super) fn name_gang(draft: &mut Draft<'_>) {
    let missing = draft.may_be_missing;
    if missing == 0 {
        return;
    }
    let name = format!("trainjob.{}", draft.name());
    // Where groups start one after the other, each is a gang of its own.
    let is_staged = jobset::is_staged(&draft.spec);
    let all: i32 = draft.spec.replicated_jobs.iter().map(jobset::pods_of).sum();
    for group in &mut draft.spec.replicated_jobs {
        let trains = is_trainer(group);
        if is_staged && !trains {
            continue;
        }
        let least = if is_staged { jobset::pods_of(group) } else { all } - missing;
        let metadata = pods(group).metadata.get_or_insert_default();
        let marks = metadata.annotations.get_or_insert_default();
        if !marks.contains_key(annotations::GANG) && !marks.contains_key(annotations::GANG_BY) {
            marks.insert(annotations::GANG.to_owned(), name.clone());
            marks.insert(annotations::GANG_MIN_AVAILABLE.to_owned(), least.to_string());
        }
    }
}
