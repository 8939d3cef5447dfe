//! Gangs that run are heard on the uplinks that they share.

use muster_scheduler_core::{Assignment, Gang, GangName, Ledger, Node, PodKey, Resources, Talk};
use muster_scheduler_topology::import::TopologySources;
use muster_scheduler_topology::{Level, NodeEntry, SharedNames, Topology, UplinkRule};

use crate::sentences::{gang, linked};

/// Four racks of two nodes with 4 GPUs, whose uplinks carry a quarter of what the nodes can send.
fn racks() -> Ledger {
    let names: Vec<[String; 2]> =
        (0..8).map(|index| [format!("n{index}"), format!("r{}", index / 2)]).collect();
    let entries: Vec<NodeEntry<'_>> = names
        .iter()
        .map(|[node, rack]| NodeEntry { gpus: 4, ..NodeEntry::new(node, &[Some(rack)]) })
        .collect();
    let rack = Level::new("rack", &[]).with_uplink(UplinkRule::oversubscribed(4.0));
    let tree = Topology::build(Level::between_cluster_and_host([rack]), &entries, SharedNames::Distinct);
    let mut ledger = Ledger::default();
    ledger.set_topology_sources(TopologySources { tree: tree.ok(), ..TopologySources::default() });
    for [name, rack] in &names {
        ledger.set_node(linked(name, rack, 4));
    }
    // One node of each rack is taken.
    for index in 0..4 {
        let place = Assignment {
            node: format!("n{}", 2 * index),
            resources: Resources::new().with("nvidia.com/gpu", 4000).with("pods", 1000),
            gpu_indices: (0..4).collect(),
            ..Assignment::default()
        };
        ledger.record(pod(index), place);
    }
    ledger
}

fn pod(index: usize) -> PodKey {
    PodKey::new("default", format!("runs-{index}"))
}

fn name() -> GangName {
    GangName { namespace: "default".into(), name: "runs".into() }
}

/// A gang between the first two racks that does little else than sum up.
fn busy(ledger: &Ledger) -> Talk {
    between(ledger, [0, 1], 100 << 30)
}

fn between(ledger: &Ledger, pods: [usize; 2], bytes: u64) -> Talk {
    let places = pods.into_iter().filter_map(|index| ledger.place_of(&pod(index))).collect();
    Talk { places, all_reduce: Some(bytes), ..Talk::default() }
}

fn two_racks(ledger: &mut Ledger) -> Vec<String> {
    let placement = ledger.place(&gang("new", 2, 4)).unwrap();
    placement.0.into_iter().map(|(_, place)| place.node).collect()
}

#[test]
fn a_gang_between_racks_keeps_off_busy_uplinks() {
    let mut ledger = racks();
    assert_eq!(two_racks(&mut ledger), ["n1", "n3"]);
    let talk = busy(&ledger);
    ledger.talks(name(), talk);
    assert_eq!(two_racks(&mut ledger), ["n5", "n7"]);
    let talk = busy(&ledger);
    ledger.talks(name(), talk);
    ledger.is_silent(&name());
    assert_eq!(two_racks(&mut ledger), ["n1", "n3"], "told twice, it is silent at once");
}

#[test]
fn traffic_is_still_known_after_nodes_have_changed() {
    let mut ledger = racks();
    let talk = busy(&ledger);
    ledger.talks(name(), talk);
    ledger.set_node(Node { schedulable: false, ..linked("n1", "r0", 4) });
    assert_eq!(two_racks(&mut ledger), ["n5", "n7"], "the tree is as it was");
    ledger.set_node(linked("n1", "r0", 4));
    ledger.set_node(linked("a-new-one", "r9", 1));
    assert_eq!(two_racks(&mut ledger), ["n5", "n7"], "all positions are others");
    let talk = between(&ledger, [2, 3], 100 << 30);
    ledger.talks(name(), talk);
    assert_eq!(two_racks(&mut ledger), ["n1", "n3"]);
}

#[test]
fn predictions_count_those_who_run_and_know_bytes() {
    let mut ledger = racks();
    let other = GangName { name: "other".into(), ..name() };
    let both = |ledger: &mut Ledger, bytes| {
        let talk = between(ledger, [0, 1], bytes);
        ledger.talks(GangName { name: "other".into(), ..name() }, talk);
    };
    both(&mut ledger, 1 << 30);
    let alone = ledger.predicted(&other).unwrap();
    ledger.is_silent(&other);
    let talk = busy(&ledger);
    ledger.talks(name(), talk);
    both(&mut ledger, 1 << 30);
    let beside = ledger.predicted(&other).unwrap();
    assert!(beside > 1.5 * alone, "{beside} against {alone}");
    both(&mut ledger, 0);
    assert_eq!(ledger.predicted(&other), None);
}

#[test]
fn a_gang_that_steps_seldom_is_heard_less() {
    let mut ledger = racks();
    let talk = Talk { step: Some(3600.0), ..busy(&ledger) };
    ledger.talks(name(), talk);
    assert_eq!(two_racks(&mut ledger), ["n1", "n3"], "an hour between its sums");
    let spread = Gang { all_reduce: Some(0), ..gang("silent", 2, 4) };
    let talk = busy(&ledger);
    ledger.talks(name(), talk);
    let placement = ledger.place(&spread).unwrap();
    assert_eq!(placement.0[0].1.node, "n1", "who does not talk need not care");
}
