//! Volcano's network-topology-aware scheduling, from its documentation.

use muster_scheduler_core::{Demand, NodeId, Slots, Space};

use crate::scheduler::placers::scatter::tightest;
use crate::scheduler::placers::{Placer, one_by_one};

/// HyperNodes in tiers, soft mode: tiers are tried from the lowest upwards; in each, every HyperNode is filled pod
/// by pod (bin packing), and of those that hold the whole gang the fullest wins. Ranks are not ordered. When no
/// HyperNode holds the gang it goes anywhere.
#[derive(Debug, Clone, Copy)]
pub struct VolcanoTiers;

impl Placer for VolcanoTiers {
    fn place(&mut self, space: &mut Space, demand: &Demand) -> Option<Slots> {
        let map = space.map();
        for level in (demand.levels.required..=map.hosts_level()).rev() {
            let mut best: Option<(u64, Slots)> = None;
            for domain in map.level(level) {
                let span = map.positions(domain);
                let inside: Vec<NodeId> = span.clone().map(|position| map.node_at(position)).collect();
                let holds = demand.groups.iter().all(|group| {
                    let fits = inside.iter().map(|node| u64::from(group.shape.times_in(space.room(*node))));
                    fits.sum::<u64>() >= u64::from(group.count)
                });
                if !holds {
                    continue;
                }
                let left = inside.iter().map(|node| u64::from(space.room(*node).devices.thousandths())).sum();
                if best.as_ref().is_some_and(|(least, _)| *least <= left) {
                    continue;
                }
                let slots = one_by_one(space, demand, |space, shape, eligible| {
                    let within = |node: &NodeId| map.position(*node).is_some_and(|at| span.contains(&at));
                    let nodes: Vec<NodeId> = eligible.iter().copied().filter(within).collect();
                    tightest(space, shape, &nodes).map(|node| (node, None))
                });
                if let Some(slots) = slots {
                    best = Some((left, slots));
                }
            }
            if let Some((_, slots)) = best {
                return Some(slots);
            }
        }
        None
    }
}
