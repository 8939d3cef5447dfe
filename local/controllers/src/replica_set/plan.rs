//! How many pods a replica set lacks or has too many. Pure.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use crate::owners::controller_reference;
use crate::pods::{is_active, is_finished, is_ready, is_terminating, phase, until_available};

/// Most pods created in one step.
const BATCH: i32 = 500;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What to do.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// How many pods to create.
    pub create: usize,
    /// Pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// The status to write.
    pub status: ReplicaSetStatus,
    /// When a ready pod becomes available.
    pub again: Option<Duration>,
}

/// Decides what the replica set needs, given the pods that it controls.
pub(crate) fn plan(set: &ReplicaSet, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let Some(spec) = &set.spec else { return Plan::default() };
    let active: Vec<&Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).collect();
    let wanted = spec.replicas.unwrap_or(1);
    let missing = wanted - active.len() as i32;
    let mut plan = Plan::default();
    if set.metadata.deletion_timestamp.is_none() {
        plan.create = missing.clamp(0, BATCH) as usize;
        plan.delete = first_to_go(&active, (-missing).max(0) as usize);
    }
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let waits: Vec<SignedDuration> =
        active.iter().filter_map(|pod| until_available(pod, min_ready, now)).collect();
    let available = waits.iter().filter(|wait| wait.is_zero()).count() as i32;
    plan.again = waits.iter().filter(|wait| !wait.is_zero()).min().map(|wait| wait.unsigned_abs());
    let template = spec.template.as_ref().and_then(|template| template.metadata.as_ref());
    let labels = template.and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    let labeled =
        active.iter().filter(|pod| labels.iter().all(|(key, value)| pod.labels().get(key) == Some(value)));
    let ending = pods.iter().filter(|pod| is_terminating(pod) && !is_finished(pod)).count() as i32;
    let count = |count: i32| (count > 0).then_some(count);
    plan.status = ReplicaSetStatus {
        replicas: active.len() as i32,
        fully_labeled_replicas: count(labeled.count() as i32),
        ready_replicas: count(waits.len() as i32),
        available_replicas: count(available),
        terminating_replicas: Some(ending),
        observed_generation: set.metadata.generation,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
    };
    plan
}

/// Pods that are worth least go first: without a node, not running, not ready, cheap to delete, young.
fn first_to_go(active: &[&Arc<Pod>], count: usize) -> Vec<Arc<Pod>> {
    let mut ranked: Vec<&Arc<Pod>> = active.to_vec();
    ranked.sort_by_key(|pod| {
        let assigned = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        let cost: i32 = pod.annotations().get(DELETION_COST).and_then(|cost| cost.parse().ok()).unwrap_or(0);
        let running = phase(pod) == "Running";
        (
            assigned,
            running,
            is_ready(pod),
            cost,
            Reverse(pod.metadata.creation_timestamp.clone()),
            pod.name_any(),
        )
    });
    ranked.into_iter().take(count).cloned().collect()
}

/// A new pod of the set.
pub(crate) fn build(set: &ReplicaSet) -> Pod {
    let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    let given = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", set.name_any())),
            namespace: set.namespace(),
            labels: given.labels,
            annotations: given.annotations,
            finalizers: given.finalizers,
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": { "name": "s", "generation": 3 },
            "spec": { "replicas": replicas, "minReadySeconds": 10, "selector": {} },
        }))
        .unwrap()
    }

    fn pod(name: &str, ready_at: Option<i64>) -> Arc<Pod> {
        let time = Timestamp::from_second(ready_at.unwrap_or(0)).unwrap().to_string();
        let ready = if ready_at.is_some() { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": name },
                "spec": { "nodeName": "n", "containers": [] },
                "status": {
                    "phase": "Running",
                    "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": time }],
                },
            }))
            .unwrap(),
        )
    }

    #[test]
    fn missing_pods_are_created_and_the_least_useful_deleted() {
        let now = Timestamp::from_second(100).unwrap();
        let pods = [pod("a", Some(80)), pod("b", None), pod("c", Some(95))];
        assert_eq!(plan(&set(5), &pods, now).create, 2);
        let shrunk = plan(&set(2), &pods, now);
        assert_eq!(shrunk.delete.iter().map(|pod| pod.name_any()).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn a_pod_is_available_only_after_a_while() {
        let now = Timestamp::from_second(100).unwrap();
        let plan = plan(&set(3), &[pod("a", Some(80)), pod("b", None), pod("c", Some(95))], now);
        assert_eq!((plan.status.ready_replicas, plan.status.available_replicas), (Some(2), Some(1)));
        assert_eq!(plan.again, Some(Duration::from_secs(5)));
        assert_eq!(plan.status.observed_generation, Some(3));
    }
}
