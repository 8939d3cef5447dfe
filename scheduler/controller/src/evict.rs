//! Deletes pods that must make room, or were steered in vain, as kube-scheduler does: the reason goes into their
//! status first.

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use muster_machinery::CancellationToken;
use muster_scheduler_core::PodKey;
use serde_json::json;

use crate::attempt::attempt;
use crate::planner::Eviction;
use crate::tell::{Note, Teller, now};

/// Pods of a gang that are deleted at once.
const CONCURRENT: usize = 16;
/// Milliseconds between the attempts to delete a pod.
const RETRIES: [u64; 6] = [100, 300, 1000, 3000, 10_000, 30_000];

/// Evicts all of the pods, as a gang that is evicted in part helps nobody; whether none of them stays.
pub(crate) async fn evict(
    client: &Client,
    teller: &Teller,
    pods: &[(PodKey, String)],
    cause: &Cause,
    stop: &CancellationToken,
) -> bool {
    let mut all = true;
    for part in pods.chunks(CONCURRENT) {
        let deleted = part.iter().map(|(pod, uid)| evict_one(client, teller, pod, uid, cause, stop));
        all &= join_all(deleted).await.into_iter().all(|deleted| deleted);
    }
    all
}

/// What evicted pods are told.
pub(crate) struct Cause {
    /// Why.
    pub(crate) why: Eviction,
    /// Whether they are another scheduler's.
    pub(crate) foreign: bool,
    /// One sentence.
    pub(crate) message: String,
}

async fn evict_one(
    client: &Client,
    teller: &Teller,
    pod: &PodKey,
    uid: &str,
    Cause { why, foreign, message }: &Cause,
    stop: &CancellationToken,
) -> bool {
    // The words of kube-scheduler, where it has some.
    let (reason, event) = match why {
        Eviction::Preempted => ("PreemptionByScheduler", "Preempted"),
        Eviction::SteeredInVain => ("SteeredInVain", "SteeredInVain"),
    };
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": reason,
        "message": message, "lastTransitionTime": now(),
    });
    let status = json!({"metadata": {"uid": uid}, "status": {"conditions": [condition]}});
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let (parameters, patch) = (PatchParams::default(), Patch::Strategic(&status));
    if let Err(error) = attempt(api.patch_status(&pod.name, &parameters, &patch)).await {
        tracing::debug!(%error, %pod, "cannot note why the pod is evicted");
    }
    teller.say(Note::event(pod, uid, *foreign, "Normal", event, message.clone()));
    delete(&api, pod, uid, stop).await
}

/// Deletes this very pod, again while the server fails; whether it goes.
async fn delete(api: &Api<Pod>, pod: &PodKey, uid: &str, stop: &CancellationToken) -> bool {
    let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
    let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
    for pause in RETRIES {
        match attempt(api.delete(&pod.name, &parameters)).await {
            Ok(_) => return true,
            // It is gone, or another of its name is there.
            Err(failure) if matches!(failure.code(), Some(404 | 409)) => return true,
            Err(failure) => {
                tracing::info!(error = %failure, %pod, "cannot evict; trying again");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(pause)) => {}
                    () = stop.cancelled() => return false,
                }
            }
        }
    }
    tracing::warn!(%pod, "a pod that is to be evicted could not be deleted; its gang stays for now");
    false
}
