//! Pods that the API server refuses: their owner says so, and goes on once it may.

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::{DaemonSet, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Event, Node, ResourceQuota};
use kube::Resource;
use kube::api::{Api, DeleteParams, PostParams};
use kube::core::NamespaceResourceScope;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::harness::Cluster;

/// A cluster with two nodes and room for one pod.
async fn cluster() -> Cluster {
    let mut cluster = Cluster::start().await;
    cluster.start_kubelet();
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    for name in ["n0", "n1"] {
        let node = serde_json::from_value(json!({ "metadata": { "name": name } })).expect("node");
        nodes.create(&PostParams::default(), &node).await.expect("created");
    }
    let quota = json!({ "metadata": { "name": "one" }, "spec": { "hard": { "pods": "1" } } });
    cluster.create::<ResourceQuota>(quota).await;
    cluster
}

fn set(spec: Value) -> Value {
    let mut whole = json!({
        "selector": { "matchLabels": { "app": "web" } },
        "template": {
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "c", "image": "i" }] },
        },
    });
    whole.as_object_mut().expect("map").extend(spec.as_object().expect("map").clone());
    json!({ "metadata": { "name": "web" }, "spec": whole })
}

/// Waits until the refusal is told; its message.
async fn told(cluster: &Cluster, kind: &str) -> String {
    let is_told = |event: &&Event| {
        event.reason.as_deref() == Some("FailedCreate") && event.involved_object.kind.as_deref() == Some(kind)
    };
    let events = cluster
        .until(cluster.api::<Event>(), "FailedCreate", |events| events.iter().any(|event| is_told(&event)));
    let events = events.await;
    events.iter().find(is_told).and_then(|event| event.message.clone()).expect("a message")
}

/// The same for a set whose pods have names of the API server.
async fn refused_is_told(cluster: &Cluster, kind: &str) {
    let message = told(cluster, kind).await;
    assert!(
        message.starts_with("Error creating: pods \"web-") && message.contains("exceeded quota"),
        "{message}"
    );
}

/// The status says so when one pod is ready, and both when the quota no longer forbids the other.
async fn both_come_once_the_quota_is_lifted<K, F>(cluster: Cluster, has: impl Fn(i32) -> F)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
    F: Fn(&[K]) -> bool,
{
    cluster.until(cluster.api(), "one ready", has(1)).await;
    cluster.api::<ResourceQuota>().delete("one", &DeleteParams::default()).await.expect("deleted");
    cluster.until(cluster.api(), "both ready", has(2)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_stateful_set_tells_of_its_status_and_of_a_pod_that_is_refused() {
    let cluster = cluster().await;
    cluster.create::<StatefulSet>(set(json!({ "replicas": 2, "serviceName": "peers" }))).await;
    let has = |ready: i32| {
        move |sets: &[StatefulSet]| {
            let status = sets.first().and_then(|set| set.status.as_ref());
            status.is_some_and(|status| (status.replicas, status.ready_replicas) == (ready, Some(ready)))
        }
    };
    let message = told(&cluster, "StatefulSet").await;
    let start =
        "create Pod web-1 in StatefulSet web failed error: pods \"web-1\" is forbidden: exceeded quota: one";
    assert!(message.starts_with(start), "{message}");
    both_come_once_the_quota_is_lifted(cluster, has).await;
}

#[tokio::test]
async fn a_daemon_set_tells_of_its_status_and_of_a_pod_that_is_refused() {
    let cluster = cluster().await;
    cluster.create::<DaemonSet>(set(json!({}))).await;
    let has = |ready: i32| {
        move |sets: &[DaemonSet]| {
            let status = sets.first().and_then(|set| set.status.as_ref());
            status.is_some_and(|status| (status.desired_number_scheduled, status.number_ready) == (2, ready))
        }
    };
    refused_is_told(&cluster, "DaemonSet").await;
    both_come_once_the_quota_is_lifted(cluster, has).await;
}

#[tokio::test]
async fn a_replica_set_tells_of_its_status_and_of_a_pod_that_is_refused() {
    let cluster = cluster().await;
    cluster.create::<ReplicaSet>(set(json!({ "replicas": 2 }))).await;
    let has = |ready: i32| {
        move |sets: &[ReplicaSet]| {
            let status = sets.first().and_then(|set| set.status.as_ref());
            status.is_some_and(|status| (status.replicas, status.ready_replicas) == (ready, Some(ready)))
        }
    };
    refused_is_told(&cluster, "ReplicaSet").await;
    both_come_once_the_quota_is_lifted(cluster, has).await;
}
