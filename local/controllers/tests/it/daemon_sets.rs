use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::harness::Cluster;

fn object(strategy: Value) -> Value {
    json!({
        "metadata": { "name": "agent" },
        "spec": {
            "selector": { "matchLabels": { "app": "agent" } }, "updateStrategy": strategy,
            "template": {
                "metadata": { "labels": { "app": "agent" } },
                "spec": { "nodeSelector": { "pool": "a" }, "containers": [{ "name": "c", "image": "one" }] },
            },
        },
    })
}

async fn nodes(cluster: &Cluster, pools: &[&str]) -> Api<Node> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    for (index, pool) in pools.iter().enumerate() {
        let node = json!({ "metadata": { "name": format!("n{index}"), "labels": { "pool": pool } } });
        let node = serde_json::from_value(node).expect("node");
        nodes.create(&PostParams::default(), &node).await.expect("created");
    }
    nodes
}

fn targets(pods: &[Pod]) -> Vec<String> {
    let node = |pod: &Pod| {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        let field = required.node_selector_terms.first()?.match_fields.as_ref()?.first()?;
        field.values.as_ref()?.first().cloned()
    };
    let mut targets: Vec<String> = pods.iter().filter_map(node).collect();
    targets.sort();
    targets
}

fn settled(sets: &[DaemonSet], nodes: i32) -> bool {
    sets.iter().filter_map(|set| Some((set, set.status.as_ref()?))).any(|(set, status)| {
        status.observed_generation == set.metadata.generation
            && [status.desired_number_scheduled, status.number_ready] == [nodes; 2]
            && [status.updated_number_scheduled, status.number_available] == [Some(nodes); 2]
    })
}

#[tokio::test]
async fn every_node_that_fits_gets_a_pod_and_loses_it_again() {
    let mut cluster = Cluster::start().await;
    cluster.start_kubelet();
    let nodes = nodes(&cluster, &["a", "b", "a"]).await;
    cluster.create::<DaemonSet>(object(json!({}))).await;
    let (sets, pods) = (cluster.api::<DaemonSet>(), cluster.api::<Pod>());
    cluster.until(sets.clone(), "two pods", |sets| settled(sets, 2)).await;
    let first = cluster.until(pods.clone(), "pods", |pods| targets(pods) == ["n0", "n2"]).await;
    let tolerations = first[0].spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
    assert!(tolerations.iter().any(|one| one.key.as_deref() == Some("node.kubernetes.io/unschedulable")));
    assert_eq!(first[0].labels()["pod-template-generation"], "1");

    let label = |pool: &str| Patch::Merge(json!({ "metadata": { "labels": { "pool": pool } } }));
    nodes.patch("n1", &PatchParams::default(), &label("a")).await.expect("labelled");
    nodes.patch("n2", &PatchParams::default(), &label("b")).await.expect("labelled");
    cluster.until(pods.clone(), "moved", |pods| targets(pods) == ["n0", "n1"]).await;
    cluster.until(sets, "settled", |sets| settled(sets, 2)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_change_rolls_out_node_by_node() {
    let mut cluster = Cluster::start().await;
    cluster.start_kubelet();
    nodes(&cluster, &["a", "a", "a"]).await;
    for (index, strategy) in [
        json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 2 } }),
        json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } }),
    ]
    .into_iter()
    .enumerate()
    {
        let mut object = object(strategy);
        let name = format!("agent-{index}");
        object["metadata"]["name"] = json!(name);
        for labels in ["/spec/selector/matchLabels", "/spec/template/metadata/labels"] {
            *object.pointer_mut(labels).expect("labels") = json!({ "app": name });
        }
        cluster.create::<DaemonSet>(object).await;
        let sets = cluster.api::<DaemonSet>();
        let own = |sets: &[DaemonSet]| -> Vec<DaemonSet> {
            sets.iter().filter(|set| set.name_any() == name).cloned().collect()
        };
        cluster.until(sets.clone(), "three pods", |sets| settled(&own(sets), 3)).await;
        let image = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": "two" }] } } } });
        sets.patch(&name, &PatchParams::default(), &Patch::Strategic(image)).await.expect("changed");
        cluster.until(sets, "updated", |sets| settled(&own(sets), 3)).await;
        let new = |pods: &[Pod]| {
            let own = pods.iter().filter(|pod| pod.labels()["app"] == name);
            let images: Vec<_> =
                own.filter_map(|pod| pod.spec.as_ref()?.containers[0].image.as_deref()).collect();
            images == ["two"; 3]
        };
        cluster.until(cluster.api::<Pod>(), "three new pods", new).await;
    }
    cluster.until(cluster.api::<ControllerRevision>(), "revisions", |kept| kept.len() == 4).await;
    cluster.stop().await;
}
