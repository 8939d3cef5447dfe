//! Published figures, and laws of the model.

use proptest::prelude::*;

use super::*;
use crate::interior::{Accelerator, NodeInterior};
use crate::link::UplinkRule;
use crate::ranks::GroupShape;
use crate::tree::{Level, NodeEntry, SharedNames};

const GIGABYTE: u64 = 1 << 30;

/// `nodes` nodes of 8 GPUs in racks of `per_rack`, racks' uplinks oversubscribed.
fn cluster(nodes: usize, per_rack: usize, oversubscription: f64) -> Topology {
    let names: Vec<[String; 2]> =
        (0..nodes).map(|node| [format!("n{node}"), format!("r{}", node / per_rack)]).collect();
    let entries: Vec<NodeEntry<'_>> = names
        .iter()
        .map(|[node, rack]| NodeEntry { gpus: 8, ..NodeEntry::new(node, &[Some(rack)]) })
        .collect();
    let rack = Level::new("rack", &[]).with_uplink(UplinkRule::oversubscribed(oversubscription));
    Topology::build(Level::between_cluster_and_host([rack]), &entries, SharedNames::Distinct).unwrap()
}

fn slots(positions: impl IntoIterator<Item = u32>, gpus: u16) -> Vec<Slot> {
    let whole = |position| (0..gpus).map(move |gpu| Slot { position: Position(position), gpu });
    positions.into_iter().flat_map(whole).collect()
}

fn one_node(accelerator: Accelerator, gpus: u16) -> (Prediction, f64) {
    let topology = cluster(1, 1, 1.0);
    let hosts = Hosts::uniform(&topology, NodeInterior::standard(accelerator, 8));
    let model = CostModel::new(&topology, &hosts);
    let prediction = model.predict(Collective::AllReduce, 8 * GIGABYTE, &slots([0], gpus)).unwrap();
    (prediction, prediction.bus_bandwidth(Collective::AllReduce, 8 * GIGABYTE, gpus.into()))
}

#[test]
fn published_bus_bandwidths_of_one_node() {
    let (a100, bus) = one_node(Accelerator::A100, 8);
    assert_eq!(a100.algorithm, Algorithm::Ring);
    assert!((230.0..=250.0).contains(&bus), "A100: {bus}");

    let ring_only = Accelerator { nvls: None, ..Accelerator::H100 };
    let (_, bus) = one_node(ring_only, 8);
    assert!((bus / 370.0 - 1.0).abs() < 0.02, "H100 ring: {bus}");

    let (h100, bus) = one_node(Accelerator::H100, 8);
    assert_eq!(h100.algorithm, Algorithm::Nvls);
    assert!((450.0..=480.0).contains(&bus), "H100 NVLS, published 460 to 480, 2 % tolerated: {bus}");

    let (pcie, bus) = one_node(Accelerator::H100_PCIE, 8);
    assert_eq!(pcie.bottleneck, Some(Bottleneck::Inside(Position(0))));
    assert!((35.0..=45.0).contains(&bus), "H100 PCIe: {bus}");
}

#[test]
fn the_plain_formula_holds_within_the_errors_known_of_it() {
    // ASTRA-sim states 9.7 %, 12 % and 20.6 % between the plain α–β ring and an HGX-H100 with 8, 4 and 2 GPUs.
    for (gpus, error) in [(8_u16, 0.097), (4, 0.12), (2, 0.206)] {
        let ring_only = Accelerator { nvls: None, ..Accelerator::H100 };
        let topology = cluster(1, 1, 1.0);
        let hosts = Hosts::uniform(&topology, NodeInterior::standard(ring_only, 8));
        let model = CostModel::new(&topology, &hosts);
        for bytes in [64 << 20, 256 << 20, GIGABYTE] {
            let ours = model.predict(Collective::AllReduce, bytes, &slots([0], gpus)).unwrap().seconds;
            let n = f64::from(gpus);
            let plain = 2.0 * (n - 1.0) * 3.4e-6 + 2.0 * (n - 1.0) / n * bytes as f64 / 370.8e9;
            assert!((ours / plain - 1.0).abs() < error, "{gpus} GPUs, {bytes} bytes: {ours} against {plain}");
        }
    }
}

#[test]
fn several_nodes_are_limited_by_their_network() {
    let topology = cluster(4, 4, 1.0);
    let hosts = Hosts::uniform(&topology, NodeInterior::standard(Accelerator::H100, 8));
    let model = CostModel::new(&topology, &hosts);
    let slots = slots(0..4, 8);
    let large = model.predict(Collective::AllReduce, 8 * GIGABYTE, &slots).unwrap();
    let bus = large.bus_bandwidth(Collective::AllReduce, 8 * GIGABYTE, 32);
    // Eight 400 Gb/s cards a node: 400 GB/s, of which 95 % at best; NVLink rings reach 370.
    assert!((340.0..=400.0).contains(&bus), "{bus}");
    let small = model.predict(Collective::AllReduce, 1024, &slots).unwrap();
    assert_eq!((small.algorithm, small.protocol), (Algorithm::Tree, Protocol::LowLatency));
    assert!(small.latency / small.seconds > 0.9);
    for collective in [Collective::AllGather, Collective::ReduceScatter] {
        let half = model.predict(collective, 8 * GIGABYTE, &slots).unwrap();
        assert!((large.seconds / half.seconds - 2.0).abs() < 0.05, "{collective:?}");
    }
}

/// The numbers in an order without any pattern, the same every time.
fn shuffled(mut numbers: Vec<u32>) -> Vec<u32> {
    let mut state = 42_u64;
    for last in (1..numbers.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        numbers.swap(last, (state >> 33) as usize % (last + 1));
    }
    numbers
}

#[test]
fn the_step_times_of_good_and_bad_placements_have_the_published_ratios() {
    // Fluidstack, 256 GPUs: a step takes 412 ms in one pod, 631 ms placed first-fit and 905 ms split over pods; of
    // the fabric and the model nothing is published. Assumed here: pods of 32 nodes with 4:1 oversubscribed
    // uplinks that two other jobs fill, half of the good step is communication, first-fit puts 26 nodes into one pod
    // and 6 into the next, and neither of the two bad placements orders its ranks. Tolerated: 15 %.
    let topology = cluster(128, 32, 4.0);
    let hosts = Hosts::uniform(&topology, NodeInterior::standard(Accelerator::H100, 8));
    let pods = topology.domains(crate::tree::LevelIndex(1));
    let other = JobTraffic::new(pods.map(|pod| (pod, topology.uplink(pod).bandwidth)));
    let mut load = Load::idle(&topology);
    load.add(&other);
    load.add(&other);
    let model = CostModel::new(&topology, &hosts).with_load(&load);
    let communication = |positions: Vec<u32>| {
        model.predict(Collective::AllReduce, 4 * GIGABYTE, &slots(positions, 8)).unwrap().seconds
    };
    let one_pod = communication((0..32).collect());
    let step = |communication: f64| (one_pod + communication) / (2.0 * one_pod);
    let first_fit = step(communication(shuffled((6..38).collect())));
    let split = step(communication(shuffled((16..48).collect())));
    println!("steps against one pod: first fit {first_fit:.2} (published 1.53), split {split:.2} (2.20)");
    assert!((first_fit / (631.0 / 412.0) - 1.0).abs() < 0.15, "{first_fit}");
    assert!((split / (905.0 / 412.0) - 1.0).abs() < 0.15, "{split}");
    // The same nodes with ordered ranks cross each uplink once.
    assert!(step(communication((16..48).collect())) < 1.0 + (split - 1.0) / 4.0);
}

#[test]
fn running_jobs_slow_down_whom_they_share_uplinks_with() {
    let topology = cluster(8, 4, 8.0);
    let hosts = Hosts::uniform(&topology, NodeInterior::standard(Accelerator::H100, 8));
    let idle = Load::idle(&topology);
    let model = CostModel::new(&topology, &hosts).with_load(&idle);
    let across = slots([3, 4], 8);
    let alone = model.predict(Collective::AllReduce, GIGABYTE, &across).unwrap();
    let Some(Bottleneck::Uplink(rack)) = alone.bottleneck else { panic!("{alone:?}") };
    assert_eq!(Bottleneck::Uplink(rack).describe(&topology), "uplink of rack r0");

    let traffic = model.traffic(Collective::AllReduce, GIGABYTE, &slots([2, 5], 8), 1.0).unwrap();
    let rates: Vec<f64> = traffic.uplinks().map(|(_, rate)| rate).collect();
    assert_eq!(rates.len(), 2);
    let uplink = topology.uplink(rack).bandwidth;
    assert!(rates.iter().all(|rate| (0.8..=1.0).contains(&(rate / uplink))), "{rates:?} of {uplink}");

    let mut busy = Load::idle(&topology);
    busy.add(&traffic);
    let shared = CostModel::new(&topology, &hosts).with_load(&busy);
    let slowed = shared.predict(Collective::AllReduce, GIGABYTE, &across).unwrap();
    assert!((1.8..2.1).contains(&(slowed.seconds / alone.seconds)));
    let elsewhere = slots([0, 1], 8);
    assert_eq!(
        shared.predict(Collective::AllReduce, GIGABYTE, &elsewhere),
        model.predict(Collective::AllReduce, GIGABYTE, &elsewhere)
    );
    busy.remove(&traffic);
    assert_eq!(busy, idle);
}

#[test]
fn all_to_all_is_limited_by_the_uplink_with_the_most_pairs() {
    let topology = cluster(8, 4, 8.0);
    let hosts = Hosts::uniform(&topology, NodeInterior::standard(Accelerator::H100, 8));
    let model = CostModel::new(&topology, &hosts);
    let prediction = model.predict(Collective::AllToAll, GIGABYTE, &slots(0..8, 8)).unwrap();
    // 32 ranks on each side send half of their gigabyte over 4 × 400 / 8 GB/s.
    let expected = 32.0 * 0.5 * GIGABYTE as f64 / (200e9 * 0.95);
    assert!((prediction.seconds / expected - 1.0).abs() < 0.01, "{prediction:?} against {expected}");
    assert!(
        matches!(prediction.bottleneck, Some(Bottleneck::Uplink(domain)) if topology.name(domain) == "r0")
    );
}

#[test]
fn hosts_of_an_nvlink_domain_are_one_island() {
    let nodes: Vec<String> = (0..36).map(|node| format!("n{node}")).collect();
    let entries: Vec<NodeEntry<'_>> = nodes
        .iter()
        .enumerate()
        .map(|(index, name)| NodeEntry { gpus: 4, ..NodeEntry::new(name, &[Some(["c0", "c1"][index / 18])]) })
        .collect();
    let mut levels = Level::between_cluster_and_host([Level::new("clique", &[])]);
    levels[2].uplink = UplinkRule::nvlink(721.8);
    let topology = Topology::build(levels, &entries, SharedNames::Distinct).unwrap();
    let hosts = Hosts::uniform(&topology, NodeInterior::standard(Accelerator::B200, 4));
    let model = CostModel::new(&topology, &hosts);
    let inside = model.predict(Collective::AllReduce, GIGABYTE, &slots(0..18, 4)).unwrap();
    assert_eq!(inside.algorithm, Algorithm::Nvls);
    assert_eq!(inside.bottleneck, Some(Bottleneck::Inside(Position(0))));
    let across = model.predict(Collective::AllReduce, GIGABYTE, &slots([0, 18], 4)).unwrap();
    let Some(Bottleneck::Uplink(clique)) = across.bottleneck else { panic!("{across:?}") };
    assert_eq!(topology.level_of(clique), topology.island_level());
    assert!(across.seconds > 2.0 * inside.seconds, "{} {}", across.seconds, inside.seconds);
}

#[test]
fn impossible_slots_are_refused() {
    let topology = cluster(1, 1, 1.0);
    let hosts = Hosts::uniform(&topology, NodeInterior::standard(Accelerator::H100, 8));
    let model = CostModel::new(&topology, &hosts);
    let predict = |position, gpu| {
        let slot = Slot { position: Position(position), gpu };
        model.predict(Collective::AllReduce, 1, &[slot]).map(|prediction| prediction.seconds)
    };
    assert_eq!(predict(0, 0), Ok(0.0));
    assert_eq!(predict(1, 0), Err(CostError::UnknownPosition { rank: 0, position: 1, nodes: 1 }));
    assert_eq!(predict(0, 64), Err(CostError::UnknownGpu { rank: 0, gpu: 64 }));
}

#[test]
fn predictions_are_quick() {
    let topology = cluster(5000, 32, 4.0);
    let hosts = Hosts::uniform(&topology, NodeInterior::standard(Accelerator::H100, 8));
    let model = CostModel::new(&topology, &hosts);
    let mut estimator = Estimator::new(model);
    for nodes in [4, 32, 1250] {
        let slots = slots(0..nodes, 8);
        let counts: Vec<(DomainId, u32)> =
            (0..nodes).map(|position| (topology.host(Position(position)), 8)).collect();
        let start = std::time::Instant::now();
        let exact = model.predict(Collective::AllReduce, GIGABYTE, &slots).unwrap();
        let prediction = start.elapsed();
        let start = std::time::Instant::now();
        let estimate = estimator.all_reduce(GIGABYTE, &counts, 8);
        println!("{nodes} nodes: prediction {prediction:?}, estimate {:?}", start.elapsed());
        assert!(estimate.seconds <= exact.seconds);
        assert!(prediction.as_millis() < 500, "{prediction:?}");
    }
}

prop_compose! {
    fn any_placement()(
        accelerator in prop::sample::select(vec![
            Accelerator::A100, Accelerator::H100, Accelerator::H100_PCIE, Accelerator::B200,
        ]),
        oversubscription in prop::sample::select(vec![1.0, 4.0, 32.0, 200.0]),
        counts in prop::collection::vec((0_u32..24, prop::sample::select(vec![1_u16, 3, 8, 8])), 1..10),
        bytes in prop::sample::select(vec![0, 1_u64 << 10, 1 << 20, 1 << 25, 1 << 32]),
        loaded in any::<bool>(),
    ) -> (Accelerator, f64, std::collections::BTreeMap<u32, u16>, u64, bool) {
        (accelerator, oversubscription, counts.into_iter().collect(), bytes, loaded)
    }
}

proptest! {
    #[test]
    fn the_estimate_is_never_above_the_prediction_and_close_to_it(
        (accelerator, oversubscription, counts, bytes, loaded) in any_placement()
    ) {
        let topology = cluster(24, 6, oversubscription);
        let hosts = Hosts::uniform(&topology, NodeInterior::standard(accelerator, 8));
        let mut load = Load::idle(&topology);
        if loaded {
            load.add(&JobTraffic::new(topology.domains(crate::tree::LevelIndex(1)).map(|rack| (rack, 30.0))));
        }
        let model = CostModel::new(&topology, &hosts).with_load(&load);
        let slots: Vec<Slot> = counts
            .iter()
            .flat_map(|(position, gpus)| (0..*gpus).map(|gpu| Slot { position: Position(*position), gpu }))
            .collect();
        let order = crate::ranks::order_ranks(&topology, &hosts, &slots, None).unwrap();
        let ordered: Vec<Slot> = order.iter().map(|slot| slots[*slot as usize]).collect();
        let exact = model.predict(Collective::AllReduce, bytes, &ordered).unwrap().seconds;

        let mut estimator = Estimator::new(model);
        let hosts: Vec<_> =
            counts.iter().map(|(at, gpus)| (topology.host(Position(*at)), u32::from(*gpus))).collect();
        let by_host = estimator.all_reduce(bytes, &hosts, 8).seconds;
        prop_assert!(by_host <= exact * 1.000_001, "{} {}", by_host, exact);
        prop_assert!(exact <= by_host * 4.0 + 1e-9, "{} {}", by_host, exact);

        let mut racks = std::collections::BTreeMap::new();
        for (host, ranks) in &hosts {
            *racks.entry(topology.parent(*host).unwrap()).or_insert(0) += ranks;
        }
        let racks: Vec<_> = racks.into_iter().collect();
        let by_rack = estimator.all_reduce(bytes, &racks, 8).seconds;
        let full = counts.values().all(|gpus| *gpus == 8);
        prop_assert!(!full || by_rack <= exact * 1.000_001, "{} {}", by_rack, exact);
        prop_assert_eq!(estimator.all_reduce(bytes, &hosts, 8).seconds.to_bits(), by_host.to_bits());
    }

    #[test]
    fn more_bytes_more_traffic_and_worse_orders_never_help(
        (accelerator, oversubscription, counts, bytes, _) in any_placement(),
        collective in prop::sample::select(vec![
            Collective::AllReduce, Collective::AllGather, Collective::ReduceScatter, Collective::AllToAll,
        ]),
    ) {
        let topology = cluster(24, 6, oversubscription);
        let hosts = Hosts::uniform(&topology, NodeInterior::standard(accelerator, 8));
        let slots: Vec<Slot> = counts
            .iter()
            .flat_map(|(position, gpus)| (0..*gpus).map(|gpu| Slot { position: Position(*position), gpu }))
            .collect();
        let model = CostModel::new(&topology, &hosts);
        let seconds = |model: &CostModel<'_>, bytes| model.predict(collective, bytes, &slots).unwrap().seconds;
        prop_assert!(seconds(&model, bytes) <= seconds(&model, bytes * 2 + 1));
        prop_assert!(seconds(&model, bytes).is_finite());
        let traffic = model.traffic(collective, bytes.max(1), &slots, 1.0).unwrap();
        let mut load = Load::idle(&topology);
        load.add(&traffic);
        prop_assert!(seconds(&model, bytes) <= seconds(&model.with_load(&load), bytes));
        for (domain, rate) in traffic.uplinks() {
            prop_assert!(rate <= topology.uplink(domain).bandwidth * 1.01 + 0.01, "no link carries more than it can");
        }
    }
}

#[test]
fn groups_are_as_slow_as_the_links_that_each_dimension_crosses() {
    let topology = cluster(4, 2, 4.0);
    let hosts = Hosts::uniform(&topology, NodeInterior::standard(Accelerator::H100, 8));
    let model = CostModel::new(&topology, &hosts);
    let shape: GroupShape = "tensor=8,data=4".parse().unwrap();
    let inside = slots(0..4, 8);
    let mut torn = inside.clone();
    torn.swap(0, 8);
    let seconds = |slots: &[Slot]| model.predict_groups(GIGABYTE, slots, &shape).unwrap();
    assert!(seconds(&torn) > 3.0 * seconds(&inside), "a tensor group between two nodes");
    let alone = model.predict(Collective::AllReduce, GIGABYTE, &[inside[0], inside[16]]).unwrap().seconds;
    let pairs: GroupShape = "tensor=1,data=2,pipeline=1".parse().unwrap();
    assert_eq!(model.predict_groups(GIGABYTE, &[inside[0], inside[16]], &pairs), Ok(alone));
}

#[test]
fn groups_that_talk_at_once_share_an_uplink() {
    // The racks' uplinks carry less than one GPU's share of its host's cards.
    let topology = cluster(4, 2, 64.0);
    let hosts = Hosts::uniform(&topology, NodeInterior::standard(Accelerator::H100, 8));
    let model = CostModel::new(&topology, &hosts);
    let pair = |gpu| [Slot { position: Position(0), gpu }, Slot { position: Position(2), gpu }];
    let four: Vec<Slot> = [0, 1].into_iter().flat_map(pair).collect();
    let alone: GroupShape = "data=2".parse().unwrap();
    // Two groups of two over the same uplink: ranks 0 and 2, 1 and 3.
    let both: GroupShape =
        "pipeline=2,data=2".parse::<GroupShape>().unwrap().with_weights(1.0, 0.0, 1.0).unwrap();
    let seconds = |slots: &[Slot], shape| model.predict_groups(GIGABYTE, slots, shape).unwrap();
    let (one, two) = (seconds(&four[..2], &alone), seconds(&four, &both));
    assert!(two > 1.8 * one, "{two} against {one}");
    let traffic = model.groups_traffic(GIGABYTE, &four, &both, 1e9).unwrap();
    assert!(traffic.uplinks().count() > 0);
}
