//! Where nodes are, as objects of other systems say.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use muster_machinery::CancellationToken;
use muster_scheduler_controller::Options;
use muster_scheduler_topology::import::slurm;
use serde_json::json;

use crate::{Cluster, node_of, until};

/// The definition of a kind with one version that takes any object.
fn definition(group: &str, version: &str, kind: &str, plural: &str) -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Cluster",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            "versions": [{"name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    }))
    .unwrap()
}

/// Defines the kind, for objects to be created.
async fn defined(cluster: &Cluster, [group, version, kind, plural]: [&str; 4]) -> Api<DynamicObject> {
    let definition = definition(group, version, kind, plural);
    Api::all(cluster.client.clone()).create(&PostParams::default(), &definition).await.unwrap();
    let kind = GroupVersionKind::gvk(group, version, kind);
    Api::all_with(cluster.client.clone(), &ApiResource::from_gvk_with_plural(&kind, plural))
}

const NODES: [(&str, u32); 4] = [("n0", 2), ("n1", 2), ("n2", 2), ("n3", 2)];

#[tokio::test]
async fn a_gang_stays_within_a_hyper_node_when_it_asks_for_that() {
    let cluster = Cluster::start(&NODES).await;
    let hyper_nodes = defined(&cluster, ["topology.volcano.sh", "v1alpha1", "HyperNode", "hypernodes"]).await;
    for (leaf, nodes) in [("leaf-0", ["n0", "n2"]), ("leaf-1", ["n1", "n3"])] {
        let members = nodes.map(|node| json!({"type": "Node", "selector": {"exactMatch": {"name": node}}}));
        let leaf = json!({"apiVersion": "topology.volcano.sh/v1alpha1", "kind": "HyperNode",
            "metadata": {"name": leaf}, "spec": {"tier": 1, "members": members}});
        hyper_nodes.create(&PostParams::default(), &serde_json::from_value(leaf).unwrap()).await.unwrap();
    }
    assert_stays_near(&cluster, Options::only_scheduler(cluster.client.clone()), "tier-1").await;
    cluster.stop().await;
}

#[tokio::test]
async fn gpus_are_chosen_by_the_numa_zones_of_the_node() {
    let cluster = Cluster::start(&[("n0", 4)]).await;
    let kind = ["topology.node.k8s.io", "v1alpha2", "NodeResourceTopology", "noderesourcetopologies"];
    let topologies = defined(&cluster, kind).await;
    let zone = |name: &str, gpus: &str| {
        json!({"name": name, "type": "Node", "resources": [
            {"name": "nvidia.com/gpu", "capacity": gpus, "allocatable": gpus, "available": gpus}]})
    };
    let object = json!({"apiVersion": "topology.node.k8s.io/v1alpha2", "kind": "NodeResourceTopology",
        "metadata": {"name": "n0"}, "zones": [zone("node-0", "1"), zone("node-1", "3")]});
    topologies.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    let stop = CancellationToken::new();
    let options = Options::only_scheduler(cluster.client.clone());
    let scheduler = tokio::spawn(options.build().run(stop.clone()));
    let pods = cluster.pods();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "pair"},
        "spec": {"schedulerName": "muster", "containers": [
            {"name": "c", "image": "host", "resources": {"limits": {"nvidia.com/gpu": "2"}}}]},
    }))
    .unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let pod = until(&pods, "pair", |pod| node_of(pod).is_some()).await;
    assert_eq!(pod.metadata.annotations.unwrap()["muster.dev/gpu-indices"], "1,2");
    stop.cancel();
    scheduler.await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn a_gang_stays_within_a_switch_of_a_tree_that_was_given() {
    let cluster = Cluster::start(&NODES).await;
    let topology = slurm::topology("SwitchName=s0 Nodes=n0,n2\nSwitchName=s1 Nodes=n1,n3").unwrap();
    let options = Options { topology: Some(topology), ..Options::only_scheduler(cluster.client.clone()) };
    assert_stays_near(&cluster, options, "tier-0").await;
    cluster.stop().await;
}

/// A gang of four fills two nodes, which are neighbours at this level though not by name.
async fn assert_stays_near(cluster: &Cluster, options: Options, level: &str) {
    let stop = CancellationToken::new();
    let scheduler = tokio::spawn(options.build().run(stop.clone()));
    let pods = cluster.pods();
    for index in 0..4 {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": format!("near-{index}"), "annotations": {
                "muster.dev/gang": "near", "muster.dev/gang-min-available": "4",
                "muster.dev/required-topology": level}},
            "spec": {"schedulerName": "muster", "containers": [
                {"name": "c", "image": "host", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]},
        }))
        .unwrap();
        pods.create(&PostParams::default(), &pod).await.unwrap();
    }
    let mut nodes = Vec::new();
    for index in 0..4 {
        let pod = until(&pods, &format!("near-{index}"), |pod| node_of(pod).is_some()).await;
        nodes.extend(node_of(&pod).map(str::to_owned));
    }
    nodes.sort();
    assert!(
        [["n0", "n0", "n2", "n2"], ["n1", "n1", "n3", "n3"]].iter().any(|leaf| nodes == leaf),
        "{nodes:?}"
    );
    stop.cancel();
    scheduler.await.unwrap();
}
