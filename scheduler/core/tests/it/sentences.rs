//! What people read when a gang waits.

use muster_scheduler_core::{Gang, Ledger, Member, Node, Resources};

pub(crate) fn node(name: &str, rack: &str, gpus: u32) -> Node {
    Node {
        name: name.to_owned(),
        labels: [("kubernetes.io/hostname", name), ("muster.dev/rack", rack)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        schedulable: true,
        allocatable: Resources::new()
            .with("nvidia.com/gpu", i64::from(gpus) * 1000)
            .with("cpu", 8000)
            .with("pods", 110_000),
        gpu_slots: gpus,
        ..Node::default()
    }
}

/// The same with GPUs that NVLink connects.
pub(crate) fn linked(name: &str, rack: &str, gpus: u32) -> Node {
    let mut node = node(name, rack, gpus);
    node.labels.insert("nvidia.com/gpu.product".to_owned(), "NVIDIA-H100-80GB-HBM3".to_owned());
    node
}

pub(crate) fn gang(name: &str, members: u32, gpus: u32) -> Gang {
    let member = |rank| Member {
        name: format!("{name}-{rank}"),
        uid: format!("{name}-{rank}-uid"),
        requests: Resources::new()
            .with("nvidia.com/gpu", i64::from(gpus) * 1000)
            .with("cpu", 100)
            .with("pods", 1000),
        gpus,
        rank,
        ..Member::default()
    };
    Gang {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        min_available: members as usize,
        waiting: (0..members).map(member).collect(),
        ..Gang::default()
    }
}

fn two_nodes() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.set_node(node("node-0", "r0", 4));
    ledger.set_node(node("node-1", "r0", 4));
    ledger
}

#[test]
fn a_gang_that_fits_one_node_goes_to_one_node() {
    let placement = two_nodes().place(&gang("digits", 4, 1)).unwrap();
    let nodes: Vec<&str> = placement.0.iter().map(|(_, place)| place.node.as_str()).collect();
    assert_eq!(nodes, ["node-0"; 4]);
    let mut slots: Vec<u32> = placement.0.iter().flat_map(|(_, place)| place.gpu_indices.clone()).collect();
    slots.sort_unstable();
    assert_eq!(slots, [0, 1, 2, 3]);
}

#[test]
fn slots_follow_the_ranks_whatever_else_the_members_ask_for() {
    let mut gang = gang("digits", 3, 1);
    gang.waiting[2].requests = gang.waiting[2].requests.clone().with("cpu", 500);
    let placement = two_nodes().place(&gang).unwrap();
    let slots: Vec<u32> = placement.0.iter().flat_map(|(_, place)| place.gpu_indices.clone()).collect();
    assert_eq!(slots, [0, 1, 2]);
}

#[test]
fn a_small_gang_takes_the_fuller_node() {
    let mut ledger = two_nodes();
    let first = ledger.place(&gang("a", 1, 2)).unwrap();
    ledger.take(&first).unwrap();
    let second = ledger.place(&gang("b", 2, 1)).unwrap();
    assert!(second.0.iter().all(|(_, place)| place.node == first.0[0].1.node));
}

#[test]
fn a_waiting_gang_says_what_would_let_it_start() {
    let mut ledger = two_nodes();
    let running = ledger.place(&gang("running", 3, 2)).unwrap();
    ledger.take(&running).unwrap();
    assert_eq!(
        ledger.place(&gang("late", 4, 1)).unwrap_err().to_string(),
        "2 of 4 pods fit now: they need nvidia.com/gpu 4 together and 2 is free; it starts when 2 more nvidia.com/gpu is released"
    );
    let mut fragmented = two_nodes();
    for name in ["a", "b"] {
        let mut one = gang(name, 1, 3);
        one.waiting[0]
            .node_selector
            .insert("kubernetes.io/hostname".into(), if name == "a" { "node-0" } else { "node-1" }.into());
        let place = fragmented.place(&one).unwrap();
        fragmented.take(&place).unwrap();
    }
    assert_eq!(
        fragmented.place(&gang("wide", 1, 2)).unwrap_err().to_string(),
        "0 of 1 pods fit now: they need nvidia.com/gpu 2 together and 2 is free, but in pieces too small; it starts when one node has more nvidia.com/gpu free"
    );
    assert_eq!(
        ledger.place(&gang("huge", 1, 8)).unwrap_err().to_string(),
        "no node can ever take pod huge-0: 2 of 2 nodes have too little nvidia.com/gpu (it asks for 8, the largest has 4); it starts when such a node joins or the pod asks for less"
    );
    let mut partial = gang("partial", 3, 1);
    partial.min_available = 4;
    assert_eq!(
        ledger.place(&partial).unwrap_err().to_string(),
        "3 of the 4 pods that must start together exist; it starts when the others are created"
    );
}

#[test]
fn cordoned_and_tainted_nodes_are_named_as_such() {
    let mut ledger = Ledger::default();
    let mut cordoned = node("node-0", "r0", 4);
    cordoned.schedulable = false;
    ledger.set_node(cordoned);
    let text = ledger.place(&gang("a", 1, 1)).unwrap_err().to_string();
    assert!(text.contains("1 of 1 nodes not ready or cordoned"), "{text}");
    let text = Ledger::default().place(&gang("a", 1, 1)).unwrap_err().to_string();
    assert!(text.contains("the cluster has no nodes"), "{text}");
}
