//! A quick estimate for the search of a placement, from counts alone.

use super::constants::Hardware;
use super::evaluate::{Facts, Narrowest, wires};
use super::{Bottleneck, Collective, CostModel, Prediction};
use crate::tree::{DomainId, LevelIndex, Position};

/// Estimates all-reduce times from how many ranks each domain gets, before anyone decides which rank goes where.
///
/// The answer is what the ranks take when they are ordered well, and never more: every used domain is left once.
/// It costs one step per domain that holds ranks and domain above it. The scratch space is kept between calls.
#[derive(Debug, Clone)]
pub struct Estimator<'a> {
    model: CostModel<'a>,
    /// Ranks in each domain during a call, 0 between calls.
    ranks: Vec<u32>,
    touched: Vec<DomainId>,
    /// The most that one GPU can send out of its island, GB/s.
    per_gpu: f64,
    /// The most that GPUs can send inside, GB/s.
    inside: f64,
    /// The most that in-switch reduction takes up, bytes per second.
    nvls: f64,
    low_latency: [f64; 3],
    hardware: Hardware,
}

impl<'a> Estimator<'a> {
    /// An estimator for this model.
    pub fn new(model: CostModel<'a>) -> Self {
        let topology = model.topology;
        let per_gpu = topology
            .domains(topology.island_level())
            .map(|island| {
                let gpus = model.hosts.gpus_in(&topology.positions(island));
                model.island_bandwidth(island, 1.max(u32::from(gpus == 0)))
            })
            .fold(0.0, f64::max);
        let kinds = model.hosts.kinds();
        let most =
            |of: &dyn Fn(&crate::interior::NodeInterior) -> f64| kinds.iter().map(of).fold(0.0, f64::max);
        let nvlink = |kind: &crate::interior::NodeInterior| kind.accelerator().nvlink_total();
        let low_latency = [0, 1, 2].map(|index| most(&|kind| kind.accelerator().low_latency[index]));
        Self {
            ranks: vec![0; topology.domain_count()],
            touched: Vec::new(),
            per_gpu,
            inside: most(&|kind| kind.widest_path().max(nvlink(kind))),
            nvls: most(&|kind| {
                nvlink(kind) * kind.accelerator().nvls.unwrap_or(0.0) * super::constants::NVLS * 1e9
            }),
            low_latency,
            hardware: if most(&nvlink) > 0.0 { Hardware::NvLink } else { Hardware::Pcie },
            model,
        }
    }

    /// What an all-reduce of so many bytes takes at best when each of these domains holds so many ranks, at most
    /// `per_island` on a host (or on the hosts that NVLink connects). Where a domain is larger than that, its ranks
    /// are taken to lie on as few hosts as possible. No domain may lie inside another; domains without ranks do not
    /// count.
    pub fn all_reduce(&mut self, bytes: u64, counts: &[(DomainId, u32)], per_island: u32) -> Prediction {
        let prediction = match self.facts(counts, per_island.max(1)) {
            Some(facts) => facts.quickest(Collective::AllReduce, bytes),
            None => Prediction::NOTHING,
        };
        for domain in self.touched.drain(..) {
            self.ranks[domain.index()] = 0;
        }
        prediction
    }

    fn facts(&mut self, counts: &[(DomainId, u32)], per_island: u32) -> Option<Facts> {
        let topology = self.model.topology;
        let level = topology.island_level();
        let (mut total, mut islands, mut widest) = (0_u32, 0_u32, 0_u32);
        for &(domain, ranks) in counts.iter().filter(|(_, ranks)| *ranks > 0) {
            total += ranks;
            let mut at = domain;
            if topology.level_of(domain) > level {
                at = topology.domain_at(level, Position(topology.positions(domain).start));
            }
            if topology.level_of(at) < level {
                let here = ranks.div_ceil(per_island);
                islands += here;
                widest = widest.max(ranks.div_ceil(here));
            } else {
                islands += u32::from(self.ranks[at.index()] == 0);
                widest = widest.max(self.ranks[at.index()] + ranks);
            }
            loop {
                if self.ranks[at.index()] == 0 {
                    self.touched.push(at);
                }
                self.ranks[at.index()] += ranks;
                let Some(above) = topology.parent(at) else { break };
                at = above;
            }
        }
        if total < 2 {
            return None;
        }
        let (n, inside) = (f64::from(islands), 1.0 / self.inside.max(0.001) / 1e9);
        let mut facts = Facts {
            ranks: f64::from(total),
            islands: n,
            widest: f64::from(widest),
            even: true,
            inside: if widest > 1 { self.hardware } else { Hardware::NvLink },
            inside_ring: (if widest > 1 { inside } else { 0.0 }, None),
            nvls: (self.nvls > 0.0 && widest > 1).then_some((1.0 / self.nvls, None)),
            low_latency: self.low_latency[(islands as usize).clamp(1, 3) - 1],
            ring: (0.0, None),
            tree: (0.0, None),
            ring_wires: 0.0,
            tree_wires: 0.0,
        };
        let mut common = LevelIndex::ROOT;
        for domain in &self.touched {
            let ranks = self.ranks[domain.index()];
            let own = topology.level_of(*domain);
            if ranks == total {
                common = common.max(own);
                continue;
            }
            let bandwidth = if own < level {
                facts.ring_wires += 2.0 * topology.uplink(*domain).latency;
                self.model.shared_bandwidth(*domain)
            } else {
                self.model.island_bandwidth(*domain, ranks)
            };
            let once = (1.0 / bandwidth / 1e9, Some(Bottleneck::Uplink(*domain)));
            facts.ring = slower(facts.ring, once);
            facts.tree = slower(facts.tree, once);
        }
        if islands > 1 {
            let island = 1.0 / (self.per_gpu * f64::from(widest)) / 1e9;
            let sum = self.per_gpu * f64::from(total) * 1e9;
            facts.ring = slower(facts.ring, (island, None));
            facts.tree = slower(facts.tree, (2.0 * (n - 1.0) / sum, None));
        }
        facts.tree_wires = wires(topology, common);
        Some(facts)
    }
}

fn slower(a: Narrowest, b: Narrowest) -> Narrowest {
    if b.0 > a.0 { b } else { a }
}
