//! Spare places: held with the gang, used when a node fails, given back when it ends.

use std::collections::BTreeSet;

use muster_scheduler_core::{Closeness, Gang, Ledger, Placement, PodKey, Waiting};
use proptest::prelude::*;

use crate::sentences::{gang, node};

/// Twelve nodes with four GPUs each in three racks.
fn cluster() -> Ledger {
    let mut ledger = Ledger::default();
    for index in 0..12 {
        ledger.set_node(node(&format!("node-{index}"), &format!("rack-{}", index / 4), 4));
    }
    ledger
}

fn with_spares(members: u32, gpus: u32, spares: u32) -> Gang {
    Gang { spares, ..gang("g", members, gpus) }
}

fn rack(node: &str) -> usize {
    node.trim_start_matches("node-").parse::<usize>().unwrap() / 4
}

fn nodes(placement: &Placement, spare: bool) -> BTreeSet<String> {
    let some = placement.0.iter().filter(|(pod, _)| pod.is_spare() == spare);
    some.map(|(_, place)| place.node.clone()).collect()
}

/// The gang after the node is gone: who stays, and new pods for the others.
fn after_loss(ledger: &mut Ledger, gang: &Gang, placement: &Placement, lost: &str) -> Gang {
    ledger.remove_node(lost);
    let mut rest = Gang { waiting: Vec::new(), ..gang.clone() };
    for (member, (pod, place)) in gang.waiting.iter().zip(&placement.0) {
        if place.node == lost {
            assert!(ledger.release(pod));
            rest.waiting.push(member.clone());
        } else {
            rest.placed_on.push(place.node.clone());
        }
    }
    rest
}

#[test]
fn a_gang_starts_with_its_spares_in_one_rack() {
    let mut ledger = cluster();
    let gang = with_spares(3, 4, 1);
    let placement = ledger.place(&gang).unwrap();
    assert_eq!(placement.0.len(), 4);
    assert_eq!(placement.0.iter().map(|(_, place)| rack(&place.node)).collect::<BTreeSet<_>>().len(), 1);
    assert!(nodes(&placement, true).is_disjoint(&nodes(&placement, false)));
    ledger.take(&placement).unwrap();
    assert_eq!(ledger.spares("default", "g").count(), 1);
    assert_eq!(ledger.release_spares("default", "g").len(), 1);
    assert_eq!(
        (
            ledger.spares("default", "g").count(),
            ledger.free().values().filter(|free| free.gpu_slots.len() == 4).count()
        ),
        (0, 9)
    );
}

#[test]
fn a_lost_node_is_replaced_in_its_rack_though_the_cluster_is_full() {
    let mut ledger = cluster();
    let gang = with_spares(3, 4, 1);
    let placement = ledger.place(&gang).unwrap();
    ledger.take(&placement).unwrap();
    let others = crate::sentences::gang("others", 8, 4);
    let filling = ledger.place(&others).unwrap();
    ledger.take(&filling).unwrap();

    let lost = placement.0[1].1.node.clone();
    let spare = ledger.spares("default", "g").next().unwrap().1.node.clone();
    let rest = after_loss(&mut ledger, &gang, &placement, &lost);
    assert!(ledger.place(&rest).is_err(), "without its spare it has no room");
    let repaired = ledger.repair(&rest).unwrap();
    assert_eq!(repaired.0[0].1.node, spare);
    assert_eq!(ledger.assignment(&PodKey::new("default", "g-1")).unwrap().node, spare);
    assert_eq!(ledger.spares("default", "g").count(), 0);

    // A second loss finds nothing.
    let again = after_loss(&mut ledger, &rest, &repaired, &spare);
    assert!(matches!(ledger.repair(&again), Err(Waiting::ForRoom { .. })));
}

#[test]
fn a_gang_without_room_for_its_spares_is_told_so() {
    let mut ledger = cluster();
    let closeness = Closeness { required: Some("muster.dev/rack".into()), ..Closeness::default() };
    let mut full = Gang { closeness, ..with_spares(4, 4, 1) };
    let reason = ledger.place(&full).unwrap_err();
    assert_eq!(reason, Waiting::ForSpares { spares: 1 });
    assert!(reason.to_string().starts_with("its pods fit now, but not 1 spare"), "{reason}");
    // An elastic gang starts smaller, and then without spares.
    full.min_available = 2;
    assert_eq!(ledger.place(&full).unwrap().0.len(), 3);
}

proptest! {
    #[test]
    fn repairs_take_nothing_from_others(
        members in 1u32..6, gpus in 1u32..5, spares in 1u32..4, lost in 0usize..6, busy in 0u32..20,
    ) {
        let mut ledger = cluster();
        let others = gang("others", busy, 2);
        if let Ok(placement) = ledger.place(&others) {
            ledger.take(&placement).unwrap();
        }
        let gang = with_spares(members, gpus, spares);
        let Ok(placement) = ledger.place(&gang) else { return Ok(()) };
        prop_assert_eq!(placement.0.len(), (members + spares) as usize);
        prop_assert!(nodes(&placement, true).is_disjoint(&nodes(&placement, false)));
        prop_assert_eq!(ledger.take(&placement), Ok(()));
        let lost = placement.0[lost % members as usize].1.node.clone();
        let rest = after_loss(&mut ledger, &gang, &placement, &lost);
        let repaired = ledger.repair(&rest);
        let enough = rest.waiting.len() <= spares as usize;
        prop_assert!(repaired.is_ok() || !enough);
        let mut slots = BTreeSet::new();
        let pods = (0..busy).map(|index| format!("others-{index}")).chain((0..members).map(|index| format!("g-{index}")));
        let held: Vec<_> = pods.filter_map(|pod| ledger.assignment(&PodKey::new("default", pod))).cloned()
            .chain(ledger.spares("default", "g").map(|(_, place)| place.clone())).collect();
        for place in held {
            for slot in place.gpu_indices {
                prop_assert!(slots.insert((place.node.clone(), slot)), "slot {slot} of {} twice", place.node);
            }
        }
    }
}
