//! What a placement costs: the time that its pods lose in their all-reduce, and the room that others could use better.
//!
//! Both are for each GPU of the gang. Time counts by the share that it is of a usual step. Room counts by how sought
//! after it is: a pod that asks for two GPUs fits on small nodes and large ones, one that asks for eight only on the
//! large. So whoever can take small nodes does when the large ones are nearly full, unless that costs him more time
//! than the room is worth; as long as much is free he gets the fastest.

mod model;

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_scheduler_topology::cost::{CostModel, Hosts, Slot as Rank};
use muster_scheduler_topology::{GpuSet, JobTraffic, Load, NodeInterior, Position, Topology};

use crate::inside::{Choices, Interiors};
use crate::map::Map;
use crate::node::Node;
use crate::ranks;
use crate::search::{Demand, Slots};
use crate::space::Space;
use crate::traffic::Talk;
use model::{Model, share_uplinks};

/// Bytes that a gang is taken to sum up in a step when nobody has said it.
const USUAL_BYTES: u64 = 500 << 20;
/// Seconds that a step is taken to last beside its all-reduce.
const USUAL_STEP: f64 = 0.2;
/// Nobody is sent to where his step takes more than so many times as long, however short room is.
const SLOWEST: f64 = 1.3;

/// How steeply the price of room rises when it runs short: half taken costs a sixteenth of all taken.
const SCARCITY: i32 = 4;

/// What a GPU costs on nodes of each size.
#[derive(Debug, Clone)]
pub(crate) struct Prices(Vec<f64>);

/// What nodes are like inside, and how sought after they are.
#[derive(Debug, Clone)]
pub(crate) struct Costs {
    hosts: Hosts,
    /// By position, whether somebody wrote its interior down.
    written: Vec<bool>,
    choices: Choices,
    /// GPUs of nodes that have any, ascending.
    sizes: Vec<u32>,
    /// By size: the part of the GPUs on nodes as large or larger that are on nodes of this size.
    weights: Vec<f64>,
    /// Index of its size in `sizes`, by position; beyond the end for nodes without GPUs.
    size_of: Vec<usize>,
}

impl Costs {
    /// `node_at` gives the node of a position.
    pub(crate) fn new<'a>(
        topology: &Topology,
        node_at: impl Fn(Position) -> &'a Node,
        interiors: Interiors,
    ) -> Self {
        let positions = (0..topology.node_count() as u32).map(Position);
        let nodes: Vec<u32> = positions.map(|position| node_at(position).gpu_slots).collect();
        let (sizes, weights) = weights(&nodes);
        let size_of = nodes.iter().map(|size| sizes.partition_point(|other| other < size));
        let size_of = nodes.iter().zip(size_of).map(|(size, at)| if *size > 0 { at } else { usize::MAX });
        let size_of = size_of.collect();
        let Interiors { hosts, written, .. } = interiors;
        Self { hosts, written, choices: Choices::default(), sizes, weights, size_of }
    }

    /// What a GPU costs now on nodes of each size: pods are taken to ask for as many GPUs as nodes have, in proportion
    /// to the GPUs on nodes of each size, and those of a size compete for the nodes that hold them.
    pub(crate) fn prices(&self, space: &Space, map: &Map) -> Prices {
        if self.sizes.len() < 2 {
            return Prices(vec![0.0; self.sizes.len()]);
        }
        let mut free_and_all = vec![(0, 0); self.sizes.len()];
        for (position, size) in self.size_of.iter().enumerate() {
            if let Some((free, all)) = free_and_all.get_mut(*size) {
                *free += space.room(map.node_at(position)).devices.whole();
                *all += self.sizes[*size];
            }
        }
        // Of nodes as large or larger.
        for size in (1..self.sizes.len()).rev() {
            let (free, all) = free_and_all[size];
            free_and_all[size - 1].0 += free;
            free_and_all[size - 1].1 += all;
        }
        let mut price = 0.0;
        let by_size = self.weights.iter().zip(free_and_all).map(|(weight, (free, all))| {
            let taken = 1.0 - f64::from(free) / f64::from(all.max(1));
            price += weight * taken.powi(SCARCITY);
            price
        });
        Prices(by_size.collect())
    }

    /// The sizes of nodes whose GPUs are less sought after than those of others, ascending.
    pub(crate) fn smaller_sizes(&self) -> &[u32] {
        &self.sizes[..self.sizes.len().saturating_sub(1)]
    }

    /// The inside of the node at a position.
    pub(crate) fn interior(&self, position: usize) -> &NodeInterior {
        self.hosts.interior(Position(position as u32))
    }

    /// The insides of all nodes.
    pub(crate) fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// Whether somebody wrote down the links inside the node at a position.
    pub(crate) fn written(&self, position: usize) -> bool {
        self.written.get(position).copied().unwrap_or(false)
    }

    /// The best of a node's free GPUs for pods with so many each; nothing where all are alike.
    pub(crate) fn share_out(
        &self,
        position: usize,
        free: GpuSet,
        each: u32,
        pods: u32,
    ) -> Option<Arc<[GpuSet]>> {
        let position = Position(position as u32);
        let alike = self.hosts.interior(position).is_uniform();
        (!alike).then(|| self.choices.share_out(&self.hosts, position, free, each, pods))
    }

    /// What `gpus` GPUs of one node cost when they sum up so many bytes: of those in `free`, at a position.
    pub(crate) fn on_host(
        &self,
        prices: &Prices,
        gpus: u32,
        bytes: u64,
    ) -> impl FnMut(usize, Option<GpuSet>) -> Cost {
        let share = 2.0 * f64::from(gpus.saturating_sub(1)) / f64::from(gpus.max(1));
        // Few sets of free GPUs are found on many nodes.
        let mut known: BTreeMap<(usize, GpuSet), f64> = BTreeMap::new();
        move |position, free| {
            if gpus < 2 || bytes == 0 {
                return Cost::new(0.0, self.price(prices, position));
            }
            let at = Position(position as u32);
            let interior = self.hosts.interior(at);
            let any = GpuSet::first(gpus as usize);
            let free = free.filter(|_| !interior.is_uniform()).unwrap_or(any);
            let seconds = *known.entry((self.hosts.kind(at), free)).or_insert_with(|| {
                let chosen = interior.choose_gpus(free, gpus as usize).unwrap_or(any);
                share * bytes as f64 / interior.ring_bandwidth(chosen).max(0.001) / 1e9
            });
            Cost::new(seconds, self.price(prices, position))
        }
    }

    fn price(&self, prices: &Prices, position: usize) -> f64 {
        prices.0.get(self.size_of[position]).copied().unwrap_or(0.0)
    }

    /// Predicted seconds of communication in a step beside the traffic of `load`, and the price of the room.
    pub(crate) fn of(
        &self,
        prices: &Prices,
        map: &Map,
        load: Option<&Load>,
        demand: &Demand,
        slots: &Slots,
    ) -> Cost {
        let (mut price, mut gpus) = (0.0, 0);
        for slot in &slots.0 {
            let Some(position) = map.position(slot.node) else { continue };
            price += self.price(prices, position) * slot.devices.len() as f64;
            gpus += slot.devices.len();
        }
        Cost::new(self.seconds(map, load, demand, slots), price / gpus.max(1) as f64)
    }

    /// Predicted seconds of communication in a step beside the traffic of `load`, with ranks as they are given out.
    pub(crate) fn seconds(&self, map: &Map, load: Option<&Load>, demand: &Demand, slots: &Slots) -> f64 {
        let order = ranks::in_order(map, demand, slots);
        let mut ranks = ranks::of_slots(map, slots, &order);
        if demand.shape.is_none() {
            // Pods without GPUs are not known to talk.
            if order.first().is_some_and(|index| slots.0[*index].devices.is_empty()) {
                return 0.0;
            }
            ranks.sort_by_key(|rank| rank.position);
        }
        self.model(map, load, bytes(demand)).seconds(demand.shape.as_ref(), &ranks)
    }

    fn model<'a>(&'a self, map: &'a Map, load: Option<&'a Load>, bytes: u64) -> Model<'a> {
        let model = CostModel::new(map.topology(), &self.hosts);
        Model { costs: load.map_or(model, |load| model.with_load(load)), topology: map.topology(), bytes }
    }

    /// Predicted seconds of communication in a step of a gang that runs on these ranks, and its traffic.
    pub(crate) fn talk(
        &self,
        map: &Map,
        load: Option<&Load>,
        talk: &Talk,
        ranks: &[Rank],
    ) -> (f64, JobTraffic) {
        let usual = if talk.places.len() > 1 { USUAL_BYTES } else { 0 };
        let bytes = talk.all_reduce.unwrap_or(usual);
        if bytes == 0 || ranks.len() < 2 {
            return (0.0, JobTraffic::default());
        }
        let shape = talk.shape.filter(|shape| shape.ranks() == ranks.len() as u64);
        let model = self.model(map, load, bytes);
        let seconds = model.seconds(shape.as_ref(), ranks);
        (seconds, model.traffic(shape.as_ref(), ranks, talk.step.unwrap_or(seconds + USUAL_STEP)))
    }
}

/// What a placement costs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Of communication in a step.
    pub(crate) seconds: f64,
    /// In GPUs for each GPU.
    pub(crate) total: f64,
}

impl Cost {
    fn new(seconds: f64, price: f64) -> Self {
        Self { seconds, total: price + seconds / USUAL_STEP }
    }

    /// Whether one whose all-reduce could take `fastest` seconds is sent there at all.
    pub(crate) fn is_bearable(&self, fastest: f64) -> bool {
        usual_step(self.seconds) <= usual_step(fastest) * SLOWEST
    }
}

/// Whether what pods on these slots send to each other may meet others' traffic.
pub(crate) fn meets_others(map: &Map, slots: &Slots) -> bool {
    let positions = slots.0.iter().filter_map(|slot| map.position(slot.node));
    share_uplinks(map.topology(), positions.map(|position| Position(position as u32)))
}

/// Seconds of a whole step in which communication takes so many.
pub(crate) fn usual_step(communication: f64) -> f64 {
    USUAL_STEP + communication
}

/// Bytes that a demand sums up in a step. A lone pod of which nothing is known is taken to sum up none.
pub(crate) fn bytes(demand: &Demand) -> u64 {
    let pods: u32 = demand.groups.iter().map(|group| group.count).sum();
    demand.all_reduce.unwrap_or(if pods > 1 { USUAL_BYTES } else { 0 })
}

/// Sizes of nodes that have GPUs, ascending, and which part of the GPUs on nodes as large or larger each has.
fn weights(nodes: &[u32]) -> (Vec<u32>, Vec<f64>) {
    let mut sizes: Vec<u32> = nodes.iter().copied().filter(|size| *size > 0).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let gpus = |on: &dyn Fn(u32) -> bool| -> f64 {
        nodes.iter().copied().filter(|size| on(*size)).map(f64::from).sum()
    };
    let weight = |size: &u32| gpus(&|other| other == *size) / gpus(&|other| other >= *size);
    let weights = sizes.iter().map(weight).collect();
    (sizes, weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_on_small_nodes_competes_for_the_large_ones_too() {
        let mut nodes = vec![8; 60];
        nodes.extend([2; 60]);
        nodes.push(0);
        assert_eq!(weights(&nodes), (vec![2, 8], vec![0.2, 1.0]));
    }
}
