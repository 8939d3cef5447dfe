//! GPUs are chosen by the links between them, as somebody wrote them down.

use std::sync::Arc;

use muster_scheduler_core::{GpuTopology, Ledger, Node, Placement};
use muster_scheduler_topology::Accelerator;
use muster_scheduler_topology::import::{Insides, TopologySources, nvidia_smi};
use serde_json::json;

use crate::sentences::{gang, node};

/// 0 and 2 are on one switch, 1 and 3 on the other.
const CROSSED: &str = "
        GPU0  GPU1  GPU2  GPU3
GPU0    X     SYS   PIX   SYS
GPU1    SYS   X     SYS   PIX
GPU2    PIX   SYS   X     SYS
GPU3    SYS   PIX   SYS   X
";

fn crossed(name: &str) -> Node {
    let interior = nvidia_smi::interior(CROSSED, Accelerator::PCIE).unwrap();
    Node { gpu_topology: GpuTopology::Links(Arc::new(interior)), ..node(name, "r0", 4) }
}

fn indices(placement: &Placement) -> Vec<&[u32]> {
    placement.0.iter().map(|(_, place)| place.gpu_indices.as_slice()).collect()
}

#[test]
fn a_pod_gets_gpus_on_one_switch_and_leaves_the_other_whole() {
    let mut ledger = Ledger::default();
    ledger.set_node(crossed("n0"));
    let pair = ledger.place(&gang("pair", 1, 2)).unwrap();
    assert_eq!(indices(&pair), [[0, 2]]);
    ledger.take(&pair).unwrap();
    assert_eq!(indices(&ledger.place(&gang("next", 2, 1)).unwrap()), [[1], [3]]);
}

#[test]
fn pods_of_a_gang_follow_the_ring_over_their_gpus() {
    let mut ledger = Ledger::default();
    ledger.set_node(crossed("n0"));
    assert_eq!(indices(&ledger.place(&gang("wide", 2, 2)).unwrap()), [[0, 2], [1, 3]]);
    let ring = ledger.place(&gang("ring", 4, 1)).unwrap();
    let ring: Vec<u32> = indices(&ring).concat();
    let apart = ring.iter().zip(ring.iter().cycle().skip(1)).filter(|(a, b)| *a % 2 != *b % 2).count();
    assert_eq!(apart, 2, "from one switch to the other and back: {ring:?}");
}

#[test]
fn a_gang_goes_to_the_node_whose_free_gpus_are_near_each_other() {
    let mut ledger = Ledger::default();
    ledger.set_node(crossed("n0"));
    ledger.set_node(crossed("n1"));
    for (name, taken) in [("n0", [0, 1]), ("n1", [0, 2])] {
        let mut other = gang(&format!("other-{name}"), 1, 2);
        other.waiting[0].node_selector = [("kubernetes.io/hostname".into(), name.into())].into();
        let mut placement = ledger.place(&other).unwrap();
        placement.0[0].1.gpu_indices = taken.to_vec();
        ledger.take(&placement).unwrap();
    }
    let placement = ledger.place(&gang("pair", 2, 1)).unwrap();
    assert!(placement.0.iter().all(|(_, place)| place.node == "n1"), "{placement:?}");
}

#[test]
fn what_is_written_on_the_node_counts_first_and_what_cannot_be_is_told() {
    let zone = |name: &str, gpus: u32| json!({"name": name, "type": "Node", "resources": [{"name": "nvidia.com/gpu", "capacity": gpus}]});
    let zones = |name: &str, gpus: [u32; 2]| json!({"metadata": {"name": name}, "zones": [zone("node-0", gpus[0]), zone("node-1", gpus[1])]});
    let objects = [
        zones("n0", [1, 3]),
        zones("n1", [1, 3]),
        zones("n2", [1, 1]),
        json!({"metadata": {"name": "n9"}, "zones": 1}),
    ];
    let insides = Insides::read("nvidia.com/gpu", &objects, &[]);
    let mut ledger = Ledger::default();
    ledger.set_topology_sources(TopologySources { insides, ..TopologySources::default() });
    ledger.set_node(crossed("n0"));
    ledger.set_node(node("n1", "r0", 4));
    ledger.set_node(node("n2", "r0", 4));
    ledger.set_node(Node { gpu_topology: GpuTopology::Unreadable("no table".into()), ..node("n3", "r0", 4) });
    let mut on = |name: &str| {
        let mut pair = gang("pair", 1, 2);
        pair.waiting[0].node_selector = [("kubernetes.io/hostname".into(), name.into())].into();
        indices(&ledger.place(&pair).unwrap()).concat()
    };
    assert_eq!((on("n0"), on("n1"), on("n2")), (vec![0, 2], vec![1, 2], vec![0, 1]));
    let map = ledger.space().map();
    assert_eq!(
        map.inside_faults(),
        [
            "NodeResourceTopology \"n9\": zones: must be a list",
            "node \"n2\": its NodeResourceTopology tells of 2 GPUs, but it has 4",
            "node \"n3\": no table",
        ]
    );
    assert_eq!((0..4).filter(|position| map.inside(*position).is_some()).count(), 2);
}
