//! The pods with index 0 of a job: what they say of its progress, and of what it waits for.

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kube::api::ListParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use muster_trainer_api::jobset::label::JOBSET_NAME;
use muster_trainer_api::train_job::TrainJob;
use muster_trainer_api::train_job::names::annotation::TRAINER_STATUS;
use muster_trainer_core::train_job::Waiting;

/// Those of all JobSets' Jobs.
pub(super) const SELECTOR: &str = "jobset.sigs.k8s.io/jobset-name,batch.kubernetes.io/job-completion-index=0";

/// Those of a job.
pub(super) async fn of_job(pods: &Api<Pod>, job: &str) -> Result<Vec<Pod>, kube::Error> {
    let selector = format!("{JOBSET_NAME}={job},batch.kubernetes.io/job-completion-index=0");
    Ok(pods.list(&ListParams::default().labels(&selector)).await?.items)
}

/// Whether a pod is one of them.
pub(super) fn is_first(pod: &Pod) -> bool {
    pod.labels().get("batch.kubernetes.io/job-completion-index").is_some_and(|index| index == "0")
}

/// The job of a pod that has something to say: how far it has come, or that it does not run yet.
pub(super) fn job_of(pod: &Pod) -> Option<ObjectRef<TrainJob>> {
    let is_told = pod.annotations().contains_key(TRAINER_STATUS) || is_pending(pod);
    let job = ObjectRef::new(pod.labels().get(JOBSET_NAME).filter(|_| is_told)?);
    Some(job.within(&pod.namespace()?))
}

/// Why pods have no node yet, as whoever schedules them says: that of the first one by name, as gangs wait together.
pub(super) fn waiting(pods: &[Pod]) -> Option<Waiting> {
    let waiting = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_pending(pod));
    let refused = waiting.filter_map(|pod| Some((pod.name_any(), refusal(pod)?)));
    let (pod, refusal) = refused.min_by(|(one, _), (other, _)| one.cmp(other))?;
    Some(Waiting {
        reason: refusal.reason.clone().filter(|reason| !reason.is_empty())?,
        message: format!("pod {pod}: {}", refusal.message.as_deref().unwrap_or_default()),
    })
}

fn is_pending(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, None | Some("" | "Pending"))
}

fn refusal(pod: &Pod) -> Option<&PodCondition> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, phase: &str, scheduled: Value) -> Pod {
        let labels = json!({JOBSET_NAME: "train"});
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "team", "labels": labels},
            "status": {"phase": phase, "conditions": [scheduled]},
        }))
        .unwrap()
    }

    #[test]
    fn a_job_waits_for_what_its_first_pod_waits_for() {
        let refused = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "the gang needs 8 GPUs, 4 are free"});
        let bound = json!({"type": "PodScheduled", "status": "True"});
        let pods = [pod("b", "Pending", refused.clone()), pod("a", "Pending", refused.clone())];
        let waiting = super::waiting(&pods).unwrap();
        assert_eq!(waiting.reason, "Unschedulable");
        assert_eq!(waiting.message, "pod a: the gang needs 8 GPUs, 4 are free");
        assert_eq!(super::waiting(&[pod("a", "Pending", bound.clone()), pod("b", "Running", refused)]), None);
        assert!(job_of(&pods[0]).is_some() && job_of(&pod("a", "Running", bound)).is_none());
    }
}
