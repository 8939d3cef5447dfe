//! Carries a decision out: writes the plan, binds the pods, tells people.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding as PodBinding, Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use muster_scheduler_api::{GangReservation, ReservedMember, annotations};
use muster_scheduler_core::{Assignment, PodKey};
use serde_json::json;

use crate::planner::Binding;

/// Milliseconds between the attempts to delete a pod that must make room.
const RETRIES: [u64; 6] = [100, 300, 1000, 3000, 10_000, 30_000];
/// Bindings of one gang that are under way at once.
const CONCURRENT_BINDINGS: usize = 32;

/// The pods of the binding that could not be bound and still exist.
pub(crate) async fn carry_out(client: &Client, component: &str, binding: &Binding) -> Vec<PodKey> {
    if binding.durable
        && let Err(error) = write_plan(client, binding).await
    {
        tracing::warn!(error = %muster_machinery::hint::chain(&error), gang = binding.gang, "cannot write the gang's plan; planning it again");
        return binding.placement.0.iter().map(|(pod, _)| pod.clone()).collect();
    }
    let mut failed = Vec::new();
    for part in binding.placement.0.chunks(CONCURRENT_BINDINGS) {
        let results = join_all(part.iter().map(|(pod, assignment)| bind(client, pod, assignment))).await;
        for ((pod, _), result) in part.iter().zip(results) {
            if let Err(error) = result {
                tracing::info!(error = %muster_machinery::hint::chain(&error), %pod, "cannot bind");
                failed.push(pod.clone());
            }
        }
    }
    if binding.durable && failed.is_empty() {
        finish_plan(client, binding).await;
    }
    for (pod, assignment) in binding.placement.0.iter().filter(|(pod, _)| !failed.contains(pod)) {
        let message = format!("Successfully assigned {pod} to {}", assignment.node);
        publish(client, component, pod, Some(&assignment.uid), "Normal", "Scheduled", &message).await;
    }
    failed
}

async fn write_plan(client: &Client, binding: &Binding) -> Result<(), kube::Error> {
    let api: Api<GangReservation> = Api::namespaced(client.clone(), &binding.namespace);
    let before = api.get_opt(&binding.gang).await?;
    let epoch = before.as_ref().map_or(1, |before| before.spec.epoch + 1);
    let members: Vec<ReservedMember> = binding.placement.0.iter().map(reserved).collect();
    let plan = json!({
        "apiVersion": "muster.dev/v1alpha1",
        "kind": "GangReservation",
        "metadata": {"name": binding.gang, "ownerReferences": binding.owner.iter().collect::<Vec<_>>()},
        "spec": {"gang": binding.gang, "epoch": epoch, "members": members},
    });
    let parameters = PatchParams::apply(muster_scheduler_api::SCHEDULER_NAME).force();
    api.patch(&binding.gang, &parameters, &Patch::Apply(&plan)).await?;
    set_phase(&api, &binding.gang, "Planned").await
}

async fn set_phase(api: &Api<GangReservation>, gang: &str, phase: &str) -> Result<(), kube::Error> {
    let status = json!({"status": {"phase": phase}});
    api.patch_status(gang, &PatchParams::default(), &Patch::Merge(&status)).await.map(|_| ())
}

/// A plan that stays `Planned` although all is bound costs the next start one look at bound pods.
async fn finish_plan(client: &Client, binding: &Binding) {
    let api: Api<GangReservation> = Api::namespaced(client.clone(), &binding.namespace);
    if let Err(error) = set_phase(&api, &binding.gang, "Bound").await {
        tracing::debug!(%error, gang = binding.gang, "cannot mark the plan as bound");
    }
}

fn reserved((pod, assignment): &(PodKey, Assignment)) -> ReservedMember {
    ReservedMember {
        pod: pod.name.clone(),
        uid: assignment.uid.clone(),
        node: assignment.node.clone(),
        gpu_indices: assignment.gpu_indices.clone(),
    }
}

async fn bind(client: &Client, pod: &PodKey, assignment: &Assignment) -> Result<(), kube::Error> {
    let slots: Vec<String> = assignment.gpu_indices.iter().map(u32::to_string).collect();
    let chosen =
        (!slots.is_empty()).then(|| BTreeMap::from([(annotations::GPU_INDICES.to_owned(), slots.join(","))]));
    let binding = PodBinding {
        metadata: ObjectMeta {
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            // Bind this very pod, not a successor of the same name.
            uid: Some(assignment.uid.clone()),
            annotations: chosen,
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".into()),
            name: Some(assignment.node.clone()),
            ..ObjectReference::default()
        },
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let answer: Result<serde_json::Value, _> =
        api.create_subresource("binding", &pod.name, &PostParams::default(), &binding).await;
    answer.map(|_| ())
}

/// Writes into the pod's status why it waits, and says so in an event.
pub(crate) async fn explain(client: &Client, component: &str, pod: &PodKey, uid: &str, message: &str) {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let status = json!({"metadata": {"uid": uid}, "status": {"conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": message, "lastTransitionTime": now,
    }]}});
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    match api.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(&status)).await {
        Ok(_) => publish(client, component, pod, Some(uid), "Warning", "FailedScheduling", message).await,
        Err(error) => tracing::debug!(%error, %pod, "cannot say why the pod waits"),
    }
}

/// Deletes the pods of a gang that must make room, as kube-scheduler does: the reason goes into their status
/// first. What cannot be deleted now is evicted again when the line finds it still in the way.
pub(crate) async fn evict(client: &Client, component: &str, pods: &[(PodKey, String)], message: &str) {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
        "message": message, "lastTransitionTime": now,
    });
    for (pod, uid) in pods {
        let status = json!({"metadata": {"uid": uid}, "status": {"conditions": [condition]}});
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
        if let Err(error) =
            api.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(&status)).await
        {
            tracing::debug!(%error, %pod, "cannot note why the pod is preempted");
        }
        publish(client, component, pod, Some(uid), "Normal", "Preempted", message).await;
        delete(&api, pod, uid).await;
    }
}

/// Deletes this very pod, again while the server fails; a gang that is evicted in part helps nobody.
async fn delete(api: &Api<Pod>, pod: &PodKey, uid: &str) {
    let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
    let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
    for pause in RETRIES {
        match api.delete(&pod.name, &parameters).await {
            Ok(_) => return,
            // It is gone, or another of its name is there.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
            Err(error) => {
                tracing::info!(error = %muster_machinery::hint::chain(&error), %pod, "cannot preempt; trying again");
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }
    tracing::warn!(%pod, "a pod that must make room could not be deleted; its gang stays until it ends");
}

/// An event about a pod; losing one harms nothing.
async fn publish(
    client: &Client,
    component: &str,
    pod: &PodKey,
    uid: Option<&str>,
    kind: &str,
    reason: &str,
    message: &str,
) {
    let now = Timestamp::now();
    let event = Event {
        metadata: ObjectMeta {
            // As client-go names events: `generateName` may not end with a dot.
            name: Some(format!("{}.{:x}", pod.name, now.as_nanosecond())),
            namespace: Some(pod.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            uid: uid.map(str::to_owned),
            ..ObjectReference::default()
        },
        type_: Some(kind.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        source: Some(EventSource { component: Some(component.to_owned()), ..EventSource::default() }),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    };
    let api: Api<Event> = Api::namespaced(client.clone(), &pod.namespace);
    if let Err(error) = api.create(&PostParams::default(), &event).await {
        tracing::debug!(%error, %pod, "cannot write an event");
    }
}
