//! B2's other half: how far from the best possible placement one gang ends up, where that can be found by trying all.

use muster_scheduler_core::{
    Demand, DeviceIndices, GangDemand, GpuDemand, Ledger, NodeId, Slot, Slots, Space,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use crate::engine::SimulationError;
use crate::generate::gangs::{LeafSpine, like_openb};
use crate::generate::pod;
use crate::network::Network;
use crate::scheduler::{BestFit, KueueTopology, Placer, ScheduleError, VolcanoTiers};
use crate::workload::{Job, Role};

const NODES: usize = 8;
/// Bytes summed up in a step.
const BYTES: u64 = 500 << 20;

/// How one placement compares with the optimum over all instances.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OptimumRow {
    /// The placement.
    pub policy: String,
    /// Gangs placed.
    pub gangs: usize,
    /// How many of them as well as possible (within a millionth).
    pub optimal: usize,
    /// Mean of predicted all-reduce time over the optimum's.
    pub mean_ratio: f64,
    /// The worst.
    pub worst_ratio: f64,
}

/// A placement and how it did.
struct Contender {
    policy: &'static str,
    placer: Box<dyn Placer>,
    /// Whether ranks are numbered along the network.
    ordered: bool,
    ratios: Vec<f64>,
}

struct Muster;

impl Placer for Muster {
    fn place(&mut self, space: &mut Space, demand: &Demand) -> Option<Slots> {
        space.find(demand)
    }
}

/// Random gangs of 2 to 5 workers on 8 partly occupied nodes, at 2 to a leaf and 2 leaves to a spine.
///
/// # Errors
/// [`SimulationError`].
pub fn gang_optimum(instances: u32, seed: u64) -> Result<Vec<OptimumRow>, SimulationError> {
    let mut random = StdRng::seed_from_u64(seed);
    let network = LeafSpine { nodes_per_leaf: 2, leaves_per_spine: 2, ..LeafSpine::default() };
    let cluster = network.over(like_openb(NODES));
    let network = Network::new(&cluster)?;
    let contender =
        |policy, placer| Contender { policy, placer, ordered: policy == "muster", ratios: Vec::new() };
    let mut contenders: [Contender; 4] = [
        contender("best-fit", Box::new(BestFit)),
        contender("volcano-tier", Box::new(VolcanoTiers)),
        contender("kueue-tas", Box::new(KueueTopology)),
        contender("muster", Box::new(Muster)),
    ];
    for _ in 0..instances {
        let mut ledger = Ledger::default();
        cluster.nodes.iter().for_each(|node| ledger.set_node(node.clone()));
        let space = ledger.space();
        occupy(space, &mut random);
        let gang = job(random.random_range(2..6), 1 << random.random_range(0..3));
        let waiting = gang.gang();
        let demand = GangDemand::new(space, &waiting, waiting.waiting.len())
            .map_err(|waiting| ScheduleError::Topology { job: gang.name.clone(), waiting })?
            .demand;
        let Some(best) = optimum(space, &demand, &network) else { continue };
        for contender in &mut contenders {
            if let Some(slots) = contender.placer.place(space, &demand)
                && let Some(cost) = network.cost(BYTES, &slots, space, contender.ordered)
            {
                contender.ratios.push(cost.all_reduce / best);
            }
        }
    }
    let row = |Contender { policy, ratios, .. }: Contender| OptimumRow {
        policy: policy.to_owned(),
        gangs: ratios.len(),
        optimal: ratios.iter().filter(|ratio| **ratio < 1.0 + 1e-6).count(),
        mean_ratio: ratios.iter().sum::<f64>() / ratios.len().max(1) as f64,
        worst_ratio: ratios.iter().copied().fold(1.0, f64::max),
    };
    Ok(contenders.into_iter().map(row).collect())
}

fn job(pods: u32, gpus: u32) -> Job {
    let roles = vec![Role { pod: pod(1000, 0, GpuDemand::Whole(gpus)), pods }];
    Job { name: "gang".to_owned(), roles, all_reduce: BYTES, ..Job::default() }
}

/// Takes a random number of GPUs of every node.
fn occupy(space: &mut Space, random: &mut StdRng) {
    let nodes: Vec<(NodeId, u32)> = space.nodes().map(|(id, node)| (id, node.gpu_slots)).collect();
    for (node, gpus) in nodes {
        let taken = random.random_range(0..=gpus);
        if taken > 0 {
            let shape = space.shape(&pod(0, 0, GpuDemand::Whole(taken)));
            if let Some(devices) = space.choose_devices(node, &shape) {
                space.take(node, &shape, &devices);
            }
        }
    }
}

/// The least predicted all-reduce time over all ways to spread the gang over the nodes, with ordered ranks. Which of a
/// node's devices a pod gets is left to the space.
fn optimum(space: &mut Space, demand: &Demand, network: &Network) -> Option<f64> {
    let group = &demand.groups[0];
    let fits: Vec<(NodeId, u32)> = space
        .nodes()
        .map(|(id, _)| (id, group.shape.times_in(space.room(id))))
        .filter(|(_, fits)| *fits > 0)
        .collect();
    let mut best = None;
    let mut chosen = Vec::new();
    try_all(&fits, group.count, &mut chosen, &mut |counts| {
        let mut slots = Slots::default();
        for (node, count) in counts {
            for _ in 0..*count {
                let devices: DeviceIndices = space.choose_devices(*node, &group.shape).unwrap_or_default();
                space.take(*node, &group.shape, &devices);
                slots.0.push(Slot { group: 0, node: *node, devices, granted: None });
            }
        }
        space.give_back_slots(demand, &slots);
        if let Some(cost) = network.cost(BYTES, &slots, space, true) {
            best = Some(best.map_or(cost.all_reduce, |best: f64| best.min(cost.all_reduce)));
        }
    });
    best
}

/// Calls `visit` with every way to divide `left` pods among the nodes.
fn try_all(
    fits: &[(NodeId, u32)],
    left: u32,
    chosen: &mut Vec<(NodeId, u32)>,
    visit: &mut impl FnMut(&[(NodeId, u32)]),
) {
    if left == 0 {
        visit(chosen);
        return;
    }
    let Some(((node, most), rest)) = fits.split_first() else { return };
    for count in 0..=left.min(*most) {
        if count > 0 {
            chosen.push((*node, count));
        }
        try_all(rest, left - count, chosen, visit);
        if count > 0 {
            chosen.pop();
        }
    }
}
