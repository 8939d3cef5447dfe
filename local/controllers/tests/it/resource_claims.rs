//! Claims of devices: made from templates for pods, and let go when these end.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::harness::Cluster;

fn pod(claims: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"schedulerName": "nobody", "resourceClaims": claims,
        "containers": [{"name": "c", "image": "host"}]}})
}

fn request() -> Value {
    json!({"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}}]}})
}

/// Gives a claim a device and a pod that uses it, as a scheduler does.
async fn allocate(cluster: &Cluster, claim: &str, pod: &Pod) {
    let api = cluster.api::<ResourceClaim>();
    let mut claim = api.get(claim).await.expect("claim");
    claim.finalizers_mut().push("resource.kubernetes.io/delete-protection".to_owned());
    let mut claim = api.replace(&claim.name_any(), &PostParams::default(), &claim).await.expect("protected");
    let status = json!({
        "allocation": {"devices": {"results": [
            {"request": "gpu", "driver": "gpu.example.com", "pool": "n", "device": "gpu-0"}]}},
        "reservedFor": [{"resource": "pods", "name": pod.name_any(), "uid": pod.uid()}],
    });
    claim.status = Some(serde_json::from_value(status).expect("status"));
    api.replace_status(&claim.name_any(), &PostParams::default(), &claim).await.expect("allocated");
}

fn is_allocated(claim: &ResourceClaim) -> bool {
    claim.status.as_ref().is_some_and(|status| status.allocation.is_some())
}

#[tokio::test]
async fn a_pod_gets_a_claim_of_its_own_from_a_template_and_loses_it_with_its_end() {
    let cluster = Cluster::start().await;
    let claims = json!([{"name": "gpu", "resourceClaimTemplateName": "one"}]);
    let pod: Pod = cluster.create(pod(claims)).await;
    // The template may come later.
    let labels = json!({"labels": {"app": "x"}});
    let template = json!({"metadata": {"name": "one"}, "spec": {"metadata": labels, "spec": request()}});
    let _: ResourceClaimTemplate = cluster.create(template).await;
    let pods = cluster
        .until(cluster.api::<Pod>(), "the pod names its claim", |pods: &[Pod]| {
            let statuses = pods.first().and_then(|pod| pod.status.as_ref()?.resource_claim_statuses.as_ref());
            statuses.is_some_and(|statuses| statuses.len() == 1)
        })
        .await;
    let statuses = pods[0].status.as_ref().and_then(|status| status.resource_claim_statuses.clone());
    let name = statuses.and_then(|mut statuses| statuses.remove(0).resource_claim_name).expect("name");
    assert!(name.starts_with("p-gpu-"), "{name}");
    let claim = cluster.api::<ResourceClaim>().get(&name).await.expect("claim");
    assert_eq!(claim.owner_references()[0].uid, pod.uid().expect("uid"));
    assert_eq!(claim.annotations()["resource.kubernetes.io/pod-claim-name"], "gpu");
    assert_eq!(claim.labels()["app"], "x");
    allocate(&cluster, &name, &pod).await;
    let api = cluster.api::<Pod>();
    let patch = kube::api::Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    api.patch_status("p", &kube::api::PatchParams::default(), &patch).await.expect("ended");
    cluster
        .until(cluster.api::<ResourceClaim>(), "the claim goes", |claims: &[ResourceClaim]| claims.is_empty())
        .await;
}

#[tokio::test]
async fn a_claim_of_several_pods_keeps_its_devices_until_the_last_of_them_is_gone() {
    let cluster = Cluster::start().await;
    let _: ResourceClaim = cluster.create(json!({"metadata": {"name": "shared"}, "spec": request()})).await;
    let pod: Pod = cluster.create(pod(json!([{"name": "gpu", "resourceClaimName": "shared"}]))).await;
    allocate(&cluster, "shared", &pod).await;
    let api = cluster.api::<ResourceClaim>();
    let deleted = api.delete("shared", &DeleteParams::default()).await.expect("deleted");
    assert!(deleted.left().is_some_and(|claim| is_allocated(&claim)), "it is in use, and so it stays");
    cluster.api::<Pod>().delete("p", &DeleteParams::default().grace_period(0)).await.expect("gone");
    cluster
        .until(cluster.api::<ResourceClaim>(), "the claim goes", |claims: &[ResourceClaim]| claims.is_empty())
        .await;
    let _: ResourceClaim = cluster.create(json!({"metadata": {"name": "shared"}, "spec": request()})).await;
    let pod: Pod = cluster.create(self::pod(json!([{"name": "gpu", "resourceClaimName": "shared"}]))).await;
    allocate(&cluster, "shared", &pod).await;
    cluster.api::<Pod>().delete("p", &DeleteParams::default().grace_period(0)).await.expect("gone");
    cluster
        .until(cluster.api::<ResourceClaim>(), "its devices are free", |claims: &[ResourceClaim]| {
            claims.iter().all(|claim| !is_allocated(claim))
        })
        .await;
}
