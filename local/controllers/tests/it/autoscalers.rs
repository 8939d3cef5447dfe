use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::Cluster;

async fn cluster() -> Cluster {
    let mut cluster =
        Cluster::start_with(|options| options.autoscaler_period = Duration::from_millis(50)).await;
    cluster.start_kubelet();
    cluster
}

fn deployment(replicas: i32) -> Value {
    json!({ "metadata": { "name": "web" }, "spec": {
        "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
        "template": {
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "c", "image": "i", "resources": { "requests": { "cpu": "1" } } }] },
        },
    }})
}

fn autoscaler(name: &str, kind: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": {
        "minReplicas": 2, "maxReplicas": 4, "scaleTargetRef": { "apiVersion": "apps/v1", "kind": kind, "name": "web" },
    }})
}

fn says(autoscaler: &HorizontalPodAutoscaler, type_: &str, reason: &str) -> bool {
    let status = autoscaler.status.as_ref();
    let mut conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.any(|condition| condition.type_ == type_ && condition.reason.as_deref() == Some(reason))
}

fn replicas(deployments: &[Deployment]) -> Option<i32> {
    deployments.first()?.spec.as_ref()?.replicas
}

/// The server of this test has no node, so nothing is measured: bounds hold all the same, and the reason is told.
#[tokio::test]
async fn bounds_hold_and_what_is_missing_is_told() {
    let cluster = cluster().await;
    let found = cluster.create::<HorizontalPodAutoscaler>(autoscaler("web", "Deployment")).await;
    assert_eq!(found.spec.metrics.map(|metrics| metrics.len()), Some(1), "the default");
    let api = cluster.api::<HorizontalPodAutoscaler>();
    let no_target = |all: &[HorizontalPodAutoscaler]| says(&all[0], "AbleToScale", "FailedGetScale");
    cluster.until(api.clone(), "no target", no_target).await;
    cluster.create::<Deployment>(deployment(1)).await;
    let deployments = cluster.api::<Deployment>();
    cluster.until(deployments.clone(), "the fewest", |all| replicas(all) == Some(2)).await;
    let many = Patch::Merge(json!({ "spec": { "replicas": 9 } }));
    deployments.patch("web", &PatchParams::default(), &many).await.expect("scaled");
    cluster.until(deployments.clone(), "the most", |all| replicas(all) == Some(4)).await;
    let unmeasured = |all: &[HorizontalPodAutoscaler]| {
        let status = all[0].status.as_ref();
        says(&all[0], "ScalingActive", "FailedGetResourceMetric")
            && says(&all[0], "AbleToScale", "SucceededGetScale")
            && status
                .is_some_and(|status| status.current_replicas == Some(4) && status.last_scale_time.is_some())
    };
    cluster.until(api.clone(), "no measurements", unmeasured).await;
    let reasons = [("SuccessfulRescale", "New size: 4"), ("FailedGetResourceMetric", "no node is connected")];
    let told = |events: &[Event]| {
        reasons.iter().all(|(reason, words)| {
            let mut all = events.iter();
            all.any(|event| {
                event.reason.as_deref() == Some(*reason)
                    && event.message.as_ref().is_some_and(|message| message.contains(words))
            })
        })
    };
    cluster.until(cluster.api(), "events", told).await;
    let none = Patch::Merge(json!({ "spec": { "replicas": 0 } }));
    deployments.patch("web", &PatchParams::default(), &none).await.expect("scaled");
    let disabled = |all: &[HorizontalPodAutoscaler]| says(&all[0], "ScalingActive", "ScalingDisabled");
    cluster.until(api, "disabled", disabled).await;
    cluster.stop().await;
}

#[tokio::test]
async fn two_autoscalers_of_the_same_pods_leave_them_alone() {
    let cluster = cluster().await;
    cluster.create::<Deployment>(deployment(2)).await;
    for name in ["one", "two"] {
        cluster.create::<HorizontalPodAutoscaler>(autoscaler(name, "Deployment")).await;
    }
    cluster.create::<HorizontalPodAutoscaler>(autoscaler("three", "Nothing")).await;
    let told = |all: &[HorizontalPodAutoscaler]| {
        let of = |name: &str| all.iter().find(|one| one.metadata.name.as_deref() == Some(name));
        of("one").is_some_and(|one| says(one, "ScalingActive", "AmbiguousSelector"))
            && of("two").is_some_and(|two| says(two, "ScalingActive", "AmbiguousSelector"))
            && of("three").is_some_and(|three| says(three, "AbleToScale", "FailedGetScale"))
    };
    cluster.until(cluster.api(), "both are told", told).await;
    cluster.stop().await;
}
