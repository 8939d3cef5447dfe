use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::harness::Cluster;

fn ready(node: &Node) -> &str {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.find(|condition| condition.type_ == "Ready").map_or("", |condition| &condition.status)
}

fn unreachable(node: &Node) -> usize {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.key == "node.kubernetes.io/unreachable").count()
}

#[tokio::test]
async fn a_node_whose_lease_runs_out_is_unknown_until_its_agent_is_back() {
    let cluster = Cluster::start_with(|options| options.node_grace = Duration::from_millis(300)).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "kube-node-lease");
    let status = || {
        Patch::Merge(json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "R",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
    };
    let renewal = || json!({"holderIdentity": "n", "renewTime": format!("{:.6}", Timestamp::now())});
    for name in ["silent", "leaseless"] {
        let node =
            json!({"metadata": {"name": name}, "spec": {"taints": [{"key": "own", "effect": "NoSchedule"}]}});
        nodes
            .create(&PostParams::default(), &serde_json::from_value(node).expect("node"))
            .await
            .expect("node");
        nodes.patch_status(name, &PatchParams::default(), &status()).await.expect("status");
    }
    let lease: Value = json!({"metadata": {"name": "silent"}, "spec": renewal()});
    leases
        .create(&PostParams::default(), &serde_json::from_value(lease).expect("lease"))
        .await
        .expect("lease");

    let is_lost = |node: &Node| ready(node) == "Unknown" && unreachable(node) == 2;
    let lost = |all: &[Node]| all.iter().any(|node| node.name_any() == "silent" && is_lost(node));
    let all = cluster.until(nodes.clone(), "the silent node is unknown", lost).await;
    let own = all.iter().find(|node| node.name_any() == "leaseless").expect("the other node");
    assert_eq!((ready(own), unreachable(own)), ("True", 0), "it never had a lease");

    // The agent is back: it renews its lease from now on and says that it is ready.
    let beat = async {
        loop {
            let patch = Patch::Merge(json!({"spec": renewal()}));
            leases.patch("silent", &PatchParams::default(), &patch).await.expect("renewed");
            nodes.patch_status("silent", &PatchParams::default(), &status()).await.expect("status");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let is_back = |node: &Node| ready(node) == "True" && unreachable(node) == 0;
    let back = |all: &[Node]| all.iter().any(|node| node.name_any() == "silent" && is_back(node));
    let all = tokio::select! {
        () = beat => Vec::new(),
        all = cluster.until(nodes.clone(), "the node is back", back) => all,
    };
    let taints = all.iter().flat_map(|node| node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()));
    assert_eq!(taints.filter(|taint| taint.key == "own").count(), 2, "taints of others stay");
    cluster.stop().await;
}
