//! No policy can hand out more than this, not even one that knows all pods beforehand and may refuse any.

use std::collections::BTreeMap;

use muster_scheduler_core::GpuDemand;
use muster_scheduler_core::fragmentation::Want;

use crate::openb::{Pod, Trace};

const ROUNDS: u32 = 300;
/// How far below the best bound the next one is hoped to be, at first.
const HOPE: f64 = 0.05;
const PRICES: usize = 24;
const STEP: usize = 10;

/// A kind of pod in the relaxation: pods of several GPUs may be torn into single ones.
struct Kind {
    want: Want,
    /// How many there are.
    supply: f64,
    /// How dear one is, because there are too few.
    price: f64,
}

impl Kind {
    fn devices(&self) -> f64 {
        if let GpuDemand::Whole(count) = self.want.gpu { f64::from(count) } else { 1.0 }
    }

    /// Steps of one device; rounded down, for the bound must not be too low.
    fn steps(&self) -> usize {
        if let GpuDemand::Share(share) = self.want.gpu { usize::from(share) / STEP } else { 1000 / STEP }
    }
}

/// An upper bound of the GPUs handed out, in per cent. Lagrangian relaxation of packing all `arrivals`: each
/// node is filled as well as can be, with prices on its processor and on kinds of pods that are scarce; any
/// prices give a bound, and these are moved to make it small.
pub fn upper_bound(trace: &Trace, arrivals: &[&Pod]) -> f64 {
    let mut supply: BTreeMap<Want, f64> = BTreeMap::new();
    for pod in arrivals.iter().filter(|pod| pod.want.gpu != GpuDemand::None) {
        *supply.entry(Want { host: [pod.want.host[0], 0], ..pod.want }).or_default() += 1.0;
    }
    let mut kinds: Vec<Kind> =
        supply.into_iter().map(|(want, supply)| Kind { want, supply, price: 0.0 }).collect();
    let mut machines: BTreeMap<(usize, i64, usize), f64> = BTreeMap::new();
    for machine in &trace.machines {
        *machines.entry((machine.model, machine.host[0], machine.devices)).or_default() += 1.0;
    }
    let capacity = trace.capacity().max(1) as f64;
    let mut least = capacity;
    for round in 0..ROUNDS {
        let mut used = vec![0.0; kinds.len()];
        let mut bound: f64 = kinds.iter().map(|kind| kind.price * kind.supply).sum();
        for ((model, processor, devices), count) in &machines {
            let (value, pattern) = best_fill(&kinds, *model, *processor as f64, *devices as f64);
            bound += count * value;
            for (index, pods) in pattern {
                used[index] += count * pods;
            }
        }
        least = least.min(bound);
        // A subgradient step, as long as would reach a bound a little below the best so far were it straight; dearer
        // what is used more than there is, cheaper what is used less.
        let excess: Vec<f64> = used.iter().zip(&kinds).map(|(used, kind)| used - kind.supply).collect();
        let length: f64 = excess.iter().map(|excess| excess * excess).sum();
        let pace = (bound - least * (1.0 - HOPE / f64::from(1 + round / 50))) / length.max(1.0);
        for (kind, excess) in kinds.iter_mut().zip(excess) {
            kind.price = (kind.price + pace * excess).max(0.0);
        }
    }
    least * 100.0 / capacity
}

/// The best fill of a node at the best price of its processor: its value, and pods of each kind.
fn best_fill(kinds: &[Kind], model: usize, processor: f64, devices: f64) -> (f64, Vec<(usize, f64)>) {
    let mut best = (f64::INFINITY, Vec::new());
    for index in 0..PRICES {
        // From nothing to a price that no pod pays, in thousandths of a GPU per thousandth of a processor.
        let price = if index == 0 { 0.0 } else { 0.004 * 1.25_f64.powi(index as i32) };
        let (value, pattern) = best_device(kinds, model, price);
        let total = price * processor + devices * value;
        if total < best.0 {
            best = (total, pattern.into_iter().map(|(kind, pods)| (kind, pods * devices)).collect());
        }
    }
    best
}

/// The best fill of one device: an unbounded knapsack.
fn best_device(kinds: &[Kind], model: usize, price: f64) -> (f64, Vec<(usize, f64)>) {
    let gain = |kind: &Kind| {
        let pod = f64::from(kind.want.gpu.thousandths()) - kind.price - price * kind.want.host[0] as f64;
        pod / kind.devices()
    };
    let paying: Vec<(usize, usize, f64)> = kinds
        .iter()
        .enumerate()
        .filter(|(_, kind)| kind.want.classes.contains(model) && gain(kind) > 0.0)
        .map(|(index, kind)| (index, kind.steps().max(1), gain(kind)))
        .collect();
    let mut values = vec![(0.0, None); 1000 / STEP + 1];
    for room in 1..values.len() {
        let mut best = (values[room - 1].0, None);
        for (index, steps, gain) in paying.iter().filter(|(_, steps, _)| *steps <= room) {
            let value = values[room - steps].0 + gain;
            if value > best.0 {
                best = (value, Some((*index, *steps)));
            }
        }
        values[room] = best;
    }
    let mut pattern = Vec::new();
    let mut room = values.len() - 1;
    while room > 0 {
        if let (_, Some((index, steps))) = values[room] {
            pattern.push((index, 1.0 / kinds[index].devices()));
            room -= steps;
        } else {
            room -= 1;
        }
    }
    (values[values.len() - 1].0, pattern)
}
