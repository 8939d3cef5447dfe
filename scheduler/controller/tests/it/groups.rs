//! Gangs that objects of other systems describe.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::{Cluster, node_of, until, waits_because};

/// The parts of the coscheduling plugin's definition that a gang is made of.
pub(super) fn definition() -> CustomResourceDefinition {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "minMember": {"type": "integer", "format": "int32", "minimum": 1},
            "minResources": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "scheduleTimeoutSeconds": {"type": "integer", "format": "int32"},
        }},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }});
    serde_json::from_value(json!({
        "metadata": {"name": "podgroups.scheduling.x-k8s.io", "annotations": {
            "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/scheduler-plugins/pull/50"}},
        "spec": {
            "group": "scheduling.x-k8s.io", "scope": "Namespaced",
            "names": {"kind": "PodGroup", "plural": "podgroups", "singular": "podgroup", "listKind": "PodGroupList"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": schema}}],
        },
    }))
    .unwrap()
}

pub(super) fn pod_groups(cluster: &Cluster) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("scheduling.x-k8s.io", "v1alpha1", "PodGroup");
    let resource = ApiResource::from_gvk_with_plural(&kind, "podgroups");
    Api::namespaced_with(cluster.client.clone(), "default", &resource)
}

/// As the training operator writes it for this gang scheduler.
pub(super) fn pod_group(least: u32) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "scheduling.x-k8s.io/v1alpha1", "kind": "PodGroup", "metadata": {"name": "job"},
        "spec": {"minMember": least, "minResources": {"nvidia.com/gpu": least.to_string()}},
    }))
    .unwrap()
}

pub(super) async fn create(pods: &Api<Pod>, name: &str, metadata: Value) {
    let mut pod = json!({"metadata": metadata, "spec": {"schedulerName": "muster", "containers": [
        {"name": "c", "image": "host", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]}});
    pod["metadata"]["name"] = json!(name);
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
}

#[tokio::test]
async fn pods_wait_for_the_pod_group_that_they_name_and_for_the_kind_itself() {
    let cluster = Cluster::start(&[("node-0", 4)]).await;
    let (stop, scheduler) = cluster.scheduler();
    let pods = cluster.pods();
    let labels = json!({"labels": {"scheduling.x-k8s.io/pod-group": "job"}});
    create(&pods, "job-0", labels.clone()).await;
    let waits = async |name: &str, why: &str| {
        until(&pods, name, |pod| waits_because(pod).is_some_and(|because| because.contains(why))).await;
    };
    waits("job-0", "the kind is not installed in this cluster").await;
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    definitions.create(&PostParams::default(), &definition()).await.unwrap();
    waits("job-0", "PodGroup.scheduling.x-k8s.io default/job does not exist").await;
    pod_groups(&cluster).create(&PostParams::default(), &pod_group(2)).await.unwrap();
    waits("job-0", "1 of the 2 pods that must start together exist").await;
    create(&pods, "job-1", labels).await;
    for name in ["job-0", "job-1"] {
        until(&pods, name, |pod| node_of(pod).is_some()).await;
    }
    let group = pod_groups(&cluster).get("job").await.unwrap();
    assert_eq!(group.data.get("status"), None, "read, and never written");
    stop.cancel();
    scheduler.await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn a_job_is_a_gang_of_its_parallelism_when_its_pods_ask_for_it() {
    let cluster = Cluster::start(&[("node-0", 4)]).await;
    let (stop, scheduler) = cluster.scheduler();
    let pods = cluster.pods();
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"},
        "spec": {"parallelism": 2, "completions": 2, "template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "host"}]}}}});
    let jobs: Api<k8s_openapi::api::batch::v1::Job> = Api::namespaced(cluster.client.clone(), "default");
    jobs.create(&PostParams::default(), &serde_json::from_value(job).unwrap()).await.unwrap();
    let asks = json!({"labels": {"batch.kubernetes.io/job-name": "j"}, "annotations": {"muster.dev/gang-by": "Job"}});
    create(&pods, "j-0", asks.clone()).await;
    let incomplete = "1 of the 2 pods that must start together exist";
    until(&pods, "j-0", |pod| waits_because(pod).is_some_and(|because| because.contains(incomplete))).await;
    create(&pods, "j-1", asks).await;
    for name in ["j-0", "j-1"] {
        until(&pods, name, |pod| node_of(pod).is_some()).await;
    }
    stop.cancel();
    scheduler.await.unwrap();
    cluster.stop().await;
}
