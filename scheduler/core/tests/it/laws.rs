//! Whatever comes: a gang is placed whole or not at all, nothing is handed out twice, planning changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use muster_scheduler_core::{Ledger, Placement};
use proptest::prelude::*;

use crate::sentences::{gang, node};

#[derive(Debug, Clone)]
enum Step {
    Arrive { members: u32, gpus: u32 },
    Finish(usize),
    Lose(usize),
    Return(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1u32..6, 0u32..5).prop_map(|(members, gpus)| Step::Arrive { members, gpus }),
        3 => any::<prop::sample::Index>().prop_map(|index| Step::Finish(index.index(64))),
        1 => any::<prop::sample::Index>().prop_map(|index| Step::Lose(index.index(4))),
        1 => any::<prop::sample::Index>().prop_map(|index| Step::Return(index.index(4))),
    ];
    prop::collection::vec(step, 1..40)
}

/// No slot has two owners and no node holds more than it has.
fn check(ledger: &Ledger, running: &BTreeMap<usize, Placement>) {
    let mut slots = BTreeSet::new();
    let mut used: BTreeMap<&str, i64> = BTreeMap::new();
    for (_, place) in running.values().flat_map(|placement| &placement.0) {
        for slot in &place.gpu_indices {
            assert!(slots.insert((place.node.as_str(), *slot)), "slot {slot} of {} twice", place.node);
        }
        assert_eq!(place.gpu_indices.len() as i64 * 1000, place.resources.get("nvidia.com/gpu"));
        *used.entry(place.node.as_str()).or_default() += place.resources.get("cpu");
    }
    for node in ledger.nodes() {
        assert!(used.get(node.name.as_str()).copied().unwrap_or(0) <= node.allocatable.get("cpu"));
    }
}

proptest! {
    #[test]
    fn gangs_are_whole_and_nothing_is_handed_out_twice(steps in steps()) {
        let mut ledger = Ledger::default();
        for index in 0..4 {
            ledger.set_node(node(&format!("node-{index}"), &format!("rack-{}", index / 2), 4));
        }
        let mut running: BTreeMap<usize, Placement> = BTreeMap::new();
        for (arrival, step) in steps.into_iter().enumerate() {
            match step {
                Step::Arrive { members, gpus } => {
                    let gang = gang(&format!("g{arrival}"), members, gpus);
                    let before = ledger.free().into_iter().map(|(name, left)| (name.to_owned(), left)).collect::<Vec<_>>();
                    let planned = ledger.place(&gang);
                    let after = ledger.free().into_iter().map(|(name, left)| (name.to_owned(), left)).collect::<Vec<_>>();
                    prop_assert_eq!(before, after, "planning took something");
                    if let Ok(placement) = planned {
                        prop_assert_eq!(placement.0.len(), gang.waiting.len());
                        prop_assert_eq!(ledger.take(&placement), Ok(()));
                        prop_assert!(ledger.take(&placement).is_err() || gpus == 0, "the same slots twice");
                        running.insert(arrival, placement);
                    } else {
                        // A gang that waits must not fit: on an empty cluster of four nodes small ones do.
                        prop_assert!(members * gpus > 0 || ledger.nodes().count() == 0);
                    }
                }
                Step::Finish(index) => {
                    let key = running.keys().nth(index % running.len().max(1)).copied();
                    if let Some(placement) = key.and_then(|key| running.remove(&key)) {
                        for (pod, _) in &placement.0 {
                            prop_assert!(ledger.release(pod));
                        }
                    }
                }
                Step::Lose(index) => {
                    let lost = format!("node-{index}");
                    ledger.remove_node(&lost);
                    running.retain(|_, placement| {
                        let hit = placement.0.iter().any(|(_, place)| place.node == lost);
                        if hit {
                            for (pod, _) in &placement.0 {
                                ledger.release(pod);
                            }
                        }
                        !hit
                    });
                }
                Step::Return(index) => ledger.set_node(node(&format!("node-{index}"), &format!("rack-{}", index / 2), 4)),
            }
            check(&ledger, &running);
        }
    }
}
