use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::Cluster;

fn object(strategy: Value) -> Value {
    json!({
        "metadata": { "name": "api" },
        "spec": {
            "replicas": 3, "strategy": strategy, "selector": { "matchLabels": { "app": "api" } },
            "template": {
                "metadata": { "labels": { "app": "api" } },
                "spec": { "containers": [{ "name": "c", "image": "img:1" }] },
            },
        },
    })
}

/// Every pod is of the present template and available, and the deployment says so.
fn is_rolled_out(revision: &str, replicas: i32) -> impl Fn(&[Deployment]) -> bool {
    move |all| {
        all.iter().any(|deployment| {
            let status = deployment.status.clone().unwrap_or_default();
            deployment.annotations().get("deployment.kubernetes.io/revision").map(String::as_str)
                == Some(revision)
                && status.observed_generation == deployment.metadata.generation
                && (status.replicas, status.updated_replicas, status.available_replicas)
                    == (Some(replicas), Some(replicas), Some(replicas))
                && status
                    .conditions
                    .iter()
                    .flatten()
                    .any(|one| one.reason.as_deref() == Some("NewReplicaSetAvailable"))
        })
    }
}

async fn change(api: &Api<Deployment>, spec: Value) {
    let patch = Patch::Strategic(json!({ "spec": spec }));
    api.patch("api", &PatchParams::default(), &patch).await.expect("changed");
}

fn image(image: &str) -> Value {
    json!({ "template": { "spec": { "containers": [{ "name": "c", "image": image }] } } })
}

#[tokio::test]
async fn a_deployment_rolls_out_scales_and_goes_back() {
    let mut cluster = Cluster::start().await;
    cluster.start_kubelet();
    cluster.create::<Deployment>(object(json!({}))).await;
    let (api, sets) = (cluster.api::<Deployment>(), cluster.api::<ReplicaSet>());
    cluster.until(api.clone(), "rolled out", is_rolled_out("1", 3)).await;
    let first = sets.list(&kube::api::ListParams::default()).await.expect("sets").items.remove(0);
    assert!(first.name_any().starts_with("api-"));
    assert_eq!(first.labels()["pod-template-hash"], first.name_any()["api-".len()..]);

    change(&api, json!({ "replicas": 1 })).await;
    cluster.until(api.clone(), "scaled", is_rolled_out("1", 1)).await;
    change(&api, image("img:2")).await;
    cluster.until(api.clone(), "second revision", is_rolled_out("2", 1)).await;
    change(&api, image("img:1")).await;
    cluster.until(api.clone(), "back", is_rolled_out("3", 1)).await;
    let back = |all: &[ReplicaSet]| {
        all.len() == 2
            && all.iter().any(|set| {
                set.name_any() == first.name_any()
                    && set.annotations().get("deployment.kubernetes.io/revision-history")
                        == Some(&"1".to_owned())
            })
    };
    cluster.until(sets.clone(), "the first set again", back).await;
    let told = |events: &[Event]| {
        let text = format!("Scaled down replica set {} from 3 to 1", first.name_any());
        events.iter().any(|event| event.message.as_deref() == Some(&text))
    };
    cluster.until(cluster.api::<Event>(), "events", told).await;

    api.delete("api", &DeleteParams::background()).await.expect("deleted");
    cluster.until(sets, "no sets", <[ReplicaSet]>::is_empty).await;
    cluster.until(cluster.api::<Pod>(), "no pods", <[Pod]>::is_empty).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_recreating_deployment_never_mixes_templates() {
    let mut cluster = Cluster::start().await;
    cluster.start_kubelet();
    cluster.create::<Deployment>(object(json!({ "type": "Recreate" }))).await;
    let api = cluster.api::<Deployment>();
    cluster.until(api.clone(), "rolled out", is_rolled_out("1", 3)).await;
    change(&api, image("img:2")).await;
    cluster.until(api.clone(), "second revision", is_rolled_out("2", 3)).await;
    let pods = cluster.until(cluster.api::<Pod>(), "three pods", |pods| pods.len() == 3).await;
    let images = pods.iter().map(|pod| pod.spec.as_ref().expect("spec").containers[0].image.clone());
    assert!(images.into_iter().all(|image| image.as_deref() == Some("img:2")));
    cluster.stop().await;
}
