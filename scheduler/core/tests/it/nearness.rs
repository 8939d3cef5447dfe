//! Gangs are near together, bound levels are kept, and whatever fits is found.

use std::collections::{BTreeMap, BTreeSet};

use muster_scheduler_core::{Closeness, Gang, Ledger, Placement, PodKey, Slice, Waiting};
use proptest::prelude::*;

use crate::sentences::{gang, node};

const NODES: usize = 12;
const RACKS: usize = 4;

fn rack_of(node: &str) -> usize {
    node.trim_start_matches("node-").parse::<usize>().unwrap() % RACKS
}

/// Twelve nodes with four GPUs each in four racks; `taken` GPUs of each are in use.
fn cluster(taken: &[u32]) -> Ledger {
    let mut ledger = Ledger::default();
    for (index, taken) in taken.iter().enumerate() {
        let name = format!("node-{index}");
        ledger.set_node(node(&name, &format!("rack-{}", index % RACKS), 4));
        for pod in 0..*taken {
            let mut one = gang(&format!("old-{index}-{pod}"), 1, 1);
            one.waiting[0].node_selector.insert("kubernetes.io/hostname".into(), name.clone());
            let place = ledger.place(&one).unwrap();
            ledger.take(&place).unwrap();
        }
    }
    ledger
}

fn taken() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0u32..5, NODES)
}

fn within(closeness: Closeness, members: u32, gpus: u32) -> Gang {
    Gang { closeness, ..gang("new", members, gpus) }
}

/// Pods by node.
fn by_node(placement: &Placement) -> BTreeMap<&str, u32> {
    let mut pods: BTreeMap<&str, u32> = BTreeMap::new();
    for (_, place) in &placement.0 {
        *pods.entry(place.node.as_str()).or_default() += 1;
    }
    pods
}

/// How many pods with `gpus` fit into each rack.
fn room_by_rack(taken: &[u32], gpus: u32) -> [u32; RACKS] {
    let mut room = [0; RACKS];
    for (index, taken) in taken.iter().enumerate() {
        room[index % RACKS] += (4 - taken) / gpus;
    }
    room
}

proptest! {
    #[test]
    fn whatever_fits_is_found_in_the_smallest_domain(taken in taken(), members in 1u32..14, gpus in 1u32..5) {
        let mut ledger = cluster(&taken);
        let placed = ledger.place(&within(Closeness::default(), members, gpus));
        let room = room_by_rack(&taken, gpus);
        let Ok(placement) = placed else {
            prop_assert!(room.iter().sum::<u32>() < members, "it fits");
            return Ok(());
        };
        let nodes = by_node(&placement);
        let racks: BTreeSet<usize> = nodes.keys().map(|node| rack_of(node)).collect();
        let one_node = taken.iter().any(|taken| (4 - taken) / gpus >= members);
        prop_assert_eq!(nodes.len() == 1, one_node);
        prop_assert_eq!(racks.len() == 1, room.iter().any(|room| *room >= members));
        // As few racks as can be: the roomiest ones.
        let mut roomiest = room;
        roomiest.sort_unstable_by(|left, right| right.cmp(left));
        let mut sum = 0;
        let needed = roomiest.iter().take_while(|room| { let short = sum < members; sum += **room; short }).count();
        prop_assert_eq!(racks.len(), needed);
    }

    #[test]
    fn a_required_level_is_never_left(taken in taken(), members in 1u32..14, gpus in 1u32..5) {
        let closeness = Closeness { required: Some("muster.dev/rack".into()), ..Closeness::default() };
        let placed = cluster(&taken).place(&within(closeness, members, gpus));
        let fits = room_by_rack(&taken, gpus).iter().any(|room| *room >= members);
        prop_assert_eq!(placed.is_ok(), fits);
        if let Ok(placement) = placed {
            let racks: BTreeSet<usize> = by_node(&placement).keys().map(|node| rack_of(node)).collect();
            prop_assert_eq!(racks.len(), 1);
        }
    }

    #[test]
    fn a_ring_enters_each_rack_and_node_once(taken in taken(), members in 2u32..20) {
        if let Ok(placement) = cluster(&taken).place(&within(Closeness::default(), members, 1)) {
            for part in [|node: &str| rack_of(node), |node: &str| node.trim_start_matches("node-").parse().unwrap()] {
                let mut visited: Vec<usize> = placement.0.iter().map(|(_, place)| part(&place.node)).collect();
                visited.dedup();
                let distinct: BTreeSet<usize> = visited.iter().copied().collect();
                prop_assert_eq!(visited.len(), distinct.len(), "{:?}", placement);
            }
        }
    }

    #[test]
    fn spread_is_even_where_there_is_room(members in 1u32..17) {
        let closeness = Closeness { spread: Some("rack".into()), ..Closeness::default() };
        let placement = cluster(&[0; NODES]).place(&within(closeness, members, 1)).unwrap();
        let mut by_rack = [0u32; RACKS];
        for (node, pods) in by_node(&placement) {
            by_rack[rack_of(node)] += pods;
        }
        prop_assert!(by_rack.iter().max().unwrap() - by_rack.iter().min().unwrap() <= 1, "{by_rack:?}");
    }

    #[test]
    fn slices_stay_within_their_node(taken in taken(), members in 1u32..40, size in 2u32..5) {
        let slice = Some(Slice { size, level: "host".into() });
        let placed = cluster(&taken).place(&within(Closeness { slice, ..Closeness::default() }, members, 1));
        let fits = taken.iter().map(|taken| (4 - taken) / size).sum::<u32>() >= members.div_ceil(size);
        prop_assert!(placed.is_ok() || !fits);
        let Ok(placement) = placed else { return Ok(()) };
        // A gang on one node needs no whole slices.
        prop_assert!(fits || by_node(&placement).len() == 1);
        for slice in placement.0.chunks(size as usize) {
            prop_assert!(slice.iter().all(|(_, place)| place.node == slice[0].1.node), "{:?}", placement);
        }
        // And a ring over all ranks still leaves each rack once.
        let mut visited: Vec<usize> = placement.0.iter().map(|(_, place)| rack_of(&place.node)).collect();
        visited.dedup();
        let distinct: BTreeSet<usize> = visited.iter().copied().collect();
        prop_assert_eq!(visited.len(), distinct.len(), "{:?}", placement);
    }

    #[test]
    fn an_elastic_gang_takes_as_many_as_fit(taken in taken(), members in 1usize..30, least in 1usize..30) {
        let mut elastic = gang("elastic", members as u32, 1);
        elastic.min_available = least.min(members);
        let room = room_by_rack(&taken, 1).iter().sum::<u32>() as usize;
        match cluster(&taken).place(&elastic) {
            Ok(placement) => prop_assert_eq!(placement.0.len(), room.min(members)),
            Err(_) => prop_assert!(room < elastic.min_available),
        }
    }

    #[test]
    fn counting_change_by_change_equals_counting_anew(steps in prop::collection::vec((0usize..NODES, 1u32..5, any::<bool>()), 1..60)) {
        let mut ledger = cluster(&[0; NODES]);
        let mut running: Vec<PodKey> = Vec::new();
        for (turn, (index, gpus, lose)) in steps.into_iter().enumerate() {
            let mut one = gang(&format!("g{turn}"), 1, gpus);
            one.waiting[0].node_selector.insert("kubernetes.io/hostname".into(), format!("node-{index}"));
            if let Ok(place) = ledger.place(&one) {
                ledger.take(&place).unwrap();
                running.push(place.0[0].0.clone());
            }
            if lose && !running.is_empty() {
                ledger.release(&running.remove(index % running.len()));
            }
            let probe = gang("probe", 1, 2);
            let space = ledger.space();
            let shape = space.shape(&probe.waiting[0]);
            let counted = space.fits(&shape);
            let anew: u32 = space.nodes().map(|(id, _)| shape.times_in(space.room(id))).sum();
            prop_assert_eq!(counted, anew);
        }
    }
}

#[test]
fn members_that_differ_find_room_whatever_their_order() {
    // One large and one small pod on two nodes of which only one holds the large one.
    for flip in [false, true] {
        let mut ledger = cluster(&[2, 0]);
        let mut pair = gang("pair", 2, 2);
        pair.waiting[usize::from(flip)].gpus = 4;
        let requests = pair.waiting[usize::from(flip)].requests.clone();
        pair.waiting[usize::from(flip)].requests = requests.with("nvidia.com/gpu", 2000);
        let placement = ledger.place(&pair).unwrap();
        assert_eq!(placement.0[usize::from(flip)].1.node, "node-1");
        assert_eq!(placement.0[usize::from(!flip)].1.node, "node-0");
    }
}

#[test]
fn a_lost_member_returns_to_its_own_rack() {
    let mut ledger = cluster(&[3, 3, 0, 0, 3, 3]);
    let mut rest = gang("g", 1, 1);
    rest.placed_on = vec!["node-0".into()];
    rest.min_available = 2;
    // node-0 and node-4 share a rack; a lone pod of this size would fit there or on node-1 and node-5 alike.
    let placement = ledger.place(&rest).unwrap();
    assert_eq!(rack_of(&placement.0[0].1.node), 0);
}

#[test]
fn shares_of_one_gpu_are_packed() {
    let mut ledger = cluster(&[0, 3]);
    let mut share = gang("share", 1, 0);
    share.waiting[0].gpu_share = 400;
    let first = ledger.place(&share).unwrap();
    assert_eq!((first.0[0].1.node.as_str(), first.0[0].1.gpu_indices.as_slice()), ("node-1", &[3][..]));
    ledger.take(&first).unwrap();
    share.waiting[0].name = "share-1".into();
    let second = ledger.place(&share).unwrap();
    assert_eq!(second.0[0].1.gpu_indices, [3]);
    ledger.take(&second).unwrap();
    assert_eq!(ledger.free()["node-1"].gpu_slots.len(), 0);
    assert!(ledger.release(&second.0[0].0) && ledger.release(&first.0[0].0));
    assert_eq!(ledger.free()["node-1"].gpu_slots.len(), 1);
}

#[test]
fn an_unknown_level_is_named() {
    let closeness = Closeness { required: Some("spine".into()), ..Closeness::default() };
    let waiting = cluster(&[0, 0]).place(&within(closeness, 2, 1)).unwrap_err();
    assert_eq!(waiting, Waiting::UnknownLevel { level: "spine".into(), known: "cluster, rack, host".into() });
}

#[test]
fn gpus_that_talk_get_fast_links_and_a_lone_one_leaves_them() {
    let mut ledger = Ledger::default();
    for (name, product) in [("node-0", "Tesla-T4"), ("node-1", "NVIDIA-H100-80GB-HBM3")] {
        let mut machine = node(name, "rack", 4);
        machine.labels.insert("nvidia.com/gpu.product".into(), product.into());
        ledger.set_node(machine);
    }
    for (members, expected) in [(1, "node-0"), (2, "node-1"), (4, "node-1")] {
        let placement = ledger.place(&gang("g", members, 1)).unwrap();
        assert!(placement.0.iter().all(|(_, place)| place.node == expected), "{members} on {expected}");
    }
}

/// Four large nodes with fast links in a rack, and eight small ones without in another.
fn of_two_sizes() -> Ledger {
    let mut ledger = Ledger::default();
    for index in 0..12 {
        let (rack, gpus, product) =
            if index < 4 { ("r0", 8, "NVIDIA-A100-SXM4-80GB") } else { ("r1", 2, "Tesla-T4") };
        let mut machine = node(&format!("node-{index:02}"), rack, gpus);
        machine.labels.insert("nvidia.com/gpu.product".into(), product.into());
        ledger.set_node(machine);
    }
    ledger
}

fn on_large(placement: &Placement) -> bool {
    placement.0.iter().all(|(_, place)| place.node.as_str() < "node-04")
}

#[test]
fn small_pods_leave_large_nodes_to_others_when_these_run_short() {
    let mut ledger = of_two_sizes();
    let light = Gang { all_reduce: Some(10 << 20), ..gang("light", 8, 2) };
    assert!(on_large(&ledger.place(&light).unwrap()), "as long as much is free it gets the fastest");
    let full = ledger.place(&gang("full", 2, 8)).unwrap();
    ledger.take(&full).unwrap();
    let half = ledger.place(&gang("half", 1, 1)).unwrap();
    assert!(!on_large(&half), "a lone pod needs no fast links");
    assert!(!on_large(&ledger.place(&light).unwrap()), "its steps hardly take longer elsewhere");
    let heavy = Gang { all_reduce: Some(1 << 30), ..light };
    assert!(on_large(&ledger.place(&heavy).unwrap()));
}

#[test]
fn nobody_is_sent_to_where_his_steps_take_much_longer() {
    let mut ledger = of_two_sizes();
    let full = ledger.place(&gang("full", 3, 8)).unwrap();
    ledger.take(&full).unwrap();
    for (bytes, stays) in [(Some(1 << 20), false), (Some(3 << 30), true), (Some(7 << 30), true)] {
        let pair = Gang { all_reduce: bytes, ..gang("pair", 2, 2) };
        assert_eq!(on_large(&ledger.place(&pair).unwrap()), stays, "{bytes:?}");
    }
}
