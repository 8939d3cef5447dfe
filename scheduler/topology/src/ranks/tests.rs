//! The order of ranks against all other orders.

use proptest::prelude::*;

use super::*;
use crate::interior::{Accelerator, NodeInterior};
use crate::tree::{Level, NodeEntry, Position, SharedNames};

/// Nodes two to a rack and two racks to a spine.
fn binary(nodes: u32) -> (Topology, Hosts) {
    let names: Vec<[String; 3]> =
        (0..nodes).map(|node| [node, node / 2, node / 4].map(|number| format!("d{number}"))).collect();
    let entries: Vec<NodeEntry<'_>> =
        names.iter().map(|[node, rack, spine]| NodeEntry::new(node, &[Some(spine), Some(rack)])).collect();
    let levels = Level::between_cluster_and_host([Level::new("spine", &[]), Level::new("rack", &[])]);
    let topology = Topology::build(levels, &entries, SharedNames::Distinct).unwrap();
    let hosts = Hosts::uniform(&topology, NodeInterior::standard(Accelerator::H100, 8));
    (topology, hosts)
}

fn slot(position: u32, gpu: u16) -> Slot {
    Slot { position: Position(position), gpu }
}

fn in_order(slots: &[Slot], order: &[u32]) -> Vec<Slot> {
    order.iter().map(|index| slots[*index as usize]).collect()
}

/// Calls `visit` with every order of the slots.
fn permutations(slots: &mut [Slot], from: usize, visit: &mut impl FnMut(&[Slot])) {
    if from == slots.len() {
        return visit(slots);
    }
    for other in from..slots.len() {
        slots.swap(from, other);
        permutations(slots, from + 1, visit);
        slots.swap(from, other);
    }
}

#[test]
fn no_order_of_a_shaped_job_is_better_on_a_balanced_tree() {
    let (topology, hosts) = binary(4);
    let slots: Vec<Slot> = (0..8).rev().map(|index| slot(index / 2, (index % 2) as u16)).collect();
    for (tensor, pipeline, data) in [(2, 2, 2), (2, 1, 4), (4, 2, 1), (1, 4, 2), (8, 1, 1)] {
        let shape = GroupShape::new(tensor, pipeline, data).unwrap();
        let ours = in_order(&slots, &order_ranks(&topology, &hosts, &slots, Some(&shape)).unwrap());
        let mut best = f64::INFINITY;
        permutations(&mut slots.clone(), 0, &mut |other| {
            best = best.min(weighted_crossings(&topology, other, &shape));
        });
        assert!(weighted_crossings(&topology, &ours, &shape) <= best, "{tensor}×{pipeline}×{data}");
    }
}

#[test]
fn the_most_talkative_dimension_is_placed_nearest() {
    let (topology, hosts) = binary(4);
    let slots: Vec<Slot> = (0..8).map(|index| slot(index / 2, (index % 2) as u16)).collect();
    let shape = GroupShape::new(2, 2, 2).unwrap().with_weights(1.0, 10.0, 2.0).unwrap();
    let ordered = in_order(&slots, &order_ranks(&topology, &hosts, &slots, Some(&shape)).unwrap());
    let crossings =
        |dimension| group_crossings(&topology, topology.host_level(), &ordered, &shape, dimension);
    assert_eq!(crossings(Dimension::Pipeline), 0);
    assert_eq!(crossings(Dimension::Tensor), 8);
    let racks = |dimension| group_crossings(&topology, LevelIndex(2), &ordered, &shape, dimension);
    assert_eq!((racks(Dimension::Data), racks(Dimension::Tensor)), (0, 8));
}

#[test]
fn tensor_groups_stay_on_their_node_when_nodes_are_filled_unevenly() {
    let (topology, hosts) = binary(4);
    let slots: Vec<Slot> =
        [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (3, 4), (3, 5)].map(|(p, g)| slot(p, g)).to_vec();
    let shape = GroupShape::new(2, 1, 4).unwrap();
    let ordered = in_order(&slots, &order_ranks(&topology, &hosts, &slots, Some(&shape)).unwrap());
    let crossings =
        |level| group_crossings(&topology, LevelIndex(level), &ordered, &shape, Dimension::Tensor);
    // Two nodes have an odd slot each: one group must span them, and it stays in their rack.
    assert_eq!((crossings(3), crossings(2)), (2, 0));
}

#[test]
fn shapes_are_read_from_text() {
    assert_eq!("tp=8, dp=4".parse(), GroupShape::new(8, 1, 4));
    assert_eq!("pipeline=2,tensor=3".parse(), GroupShape::new(3, 2, 1));
    for text in ["", "tp", "tp=-1", "tp=1,tensor=2", "xp=2", "tp=4294967296"] {
        assert_eq!(text.parse::<GroupShape>(), Err(ShapeError::Text { text: text.to_owned() }));
    }
    assert_eq!("tp=0".parse::<GroupShape>(), Err(ShapeError::Zero { dimension: Dimension::Tensor }));
}

#[test]
fn shapes_over_pods_with_several_gpus() {
    let shape = GroupShape::new(4, 2, 6).unwrap();
    let over = |gpus| shape.over_units(gpus).map(|shape| shape.to_string());
    assert_eq!(over(1).as_deref(), Some("tensor=4,pipeline=2,data=6"));
    assert_eq!(over(2).as_deref(), Some("tensor=2,pipeline=2,data=6"), "a tensor group spans two pods");
    assert_eq!(over(8).as_deref(), Some("tensor=1,pipeline=2,data=3"), "a pod holds two of them");
    assert_eq!(over(24).as_deref(), Some("tensor=1,pipeline=2,data=1"));
    assert_eq!((over(3), over(16)), (None, None));
    assert_eq!(shape.with_ranks(32), GroupShape::new(4, 2, 4).ok());
    assert_eq!((shape.with_ranks(36), shape.with_ranks(4)), (None, None));
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let (topology, hosts) = binary(1);
    assert_eq!(GroupShape::new(1, 0, 1).unwrap_err().to_string(), "Pipeline parallelism must be at least 1");
    assert!(GroupShape::new(1, 1, 1).unwrap().with_weights(1.0, f64::NAN, 1.0).is_err());
    let order = |slots: &[Slot]| {
        order_ranks(&topology, &hosts, slots, Some(&GroupShape::new(2, 2, 1).unwrap()))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(order(&[slot(0, 0)]), "tensor × data × pipeline is 4 ranks, but 1 are placed");
    assert_eq!(order(&[slot(1, 0)]), "slot 0 is at position 1, beyond the topology's end");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_ring_leaves_each_domain_once_and_no_order_does_better(
        places in prop::collection::vec((0_u32..8, 0_u16..8), 1..7)
    ) {
        let (topology, hosts) = binary(8);
        let mut slots: Vec<Slot> = places.into_iter().map(|(position, gpu)| slot(position, gpu)).collect();
        let order = order_ranks(&topology, &hosts, &slots, None).unwrap();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..slots.len() as u32).collect::<Vec<_>>(), "every slot once");
        let ours = in_order(&slots, &order);
        for level in topology.level_indices() {
            let mut used: Vec<_> = slots.iter().map(|slot| topology.domain_at(level, slot.position)).collect();
            used.sort_unstable();
            used.dedup();
            let crossings = ring_crossings(&topology, level, &ours);
            prop_assert_eq!(crossings, if used.len() == 1 { 0 } else { used.len() });
            let mut best = usize::MAX;
            permutations(&mut slots, 0, &mut |other| best = best.min(ring_crossings(&topology, level, other)));
            prop_assert_eq!(crossings, best);
        }
    }

    #[test]
    fn every_rank_gets_a_slot_of_its_own(
        (tensor, pipeline, data) in (1_u32..5, 1_u32..4, 1_u32..4),
        seed in 0_u32..1000,
    ) {
        let (topology, hosts) = binary(16);
        let count = tensor * pipeline * data;
        let slots: Vec<Slot> =
            (0..count).map(|index| (index * 37 + seed) % 128).map(|at| slot(at / 8, (at % 8) as u16)).collect();
        let shape = GroupShape::new(tensor, pipeline, data).unwrap();
        let mut order = order_ranks(&topology, &hosts, &slots, Some(&shape)).unwrap();
        order.sort_unstable();
        prop_assert_eq!(order, (0..count).collect::<Vec<_>>());
    }

    #[test]
    fn a_shape_never_crosses_more_than_the_plain_order(
        (tensor, pipeline, data) in (1_u32..5, 1_u32..4, 1_u32..4),
        free in prop::collection::vec(0_u16..9, 16),
    ) {
        let (topology, hosts) = binary(16);
        let count = (tensor * pipeline * data) as usize;
        let places = (0_u32..).zip(free).flat_map(|(node, gpus)| (0..gpus).map(move |gpu| slot(node, gpu)));
        let slots: Vec<Slot> = places.take(count).collect();
        prop_assume!(slots.len() == count);
        let shape = GroupShape::new(tensor, pipeline, data).unwrap();
        let crossings = |with: Option<&GroupShape>| {
            let order = order_ranks(&topology, &hosts, &slots, with).unwrap();
            weighted_crossings(&topology, &in_order(&slots, &order), &shape)
        };
        prop_assert!(crossings(Some(&shape)) <= crossings(None));
    }
}
