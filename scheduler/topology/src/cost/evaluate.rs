//! The α–β formulas.

use super::constants::{self, Hardware};
use super::{Algorithm, Bottleneck, Collective, CostModel, Layout, Prediction, Protocol};
use crate::interior::GpuSet;
use crate::tree::{DomainId, LevelIndex, Topology};

/// Seconds per byte, and the link that makes it so.
pub(super) type Narrowest = (f64, Option<Bottleneck>);

/// What the formulas need to know of a placement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) ranks: f64,
    pub(super) islands: f64,
    /// Ranks of the fullest island.
    pub(super) widest: f64,
    /// Whether all islands have equally many.
    pub(super) even: bool,
    pub(super) inside: Hardware,
    /// Seconds per byte over the narrowest link inside an island.
    pub(super) inside_ring: Narrowest,
    /// Seconds per byte of in-switch reduction, where all islands can.
    pub(super) nvls: Option<Narrowest>,
    /// GB/s that the low-latency protocol reaches at most.
    pub(super) low_latency: f64,
    /// Per byte that crosses once: seconds on the narrowest uplink of the ring.
    pub(super) ring: Narrowest,
    /// Per byte of the buffer: seconds on the narrowest uplink of the trees.
    pub(super) tree: Narrowest,
    /// Microseconds of wires and switches, over all hops of the ring and over the tree's longest edge.
    pub(super) ring_wires: f64,
    pub(super) tree_wires: f64,
}

/// Microseconds from a domain of the islands' level to another whose common ancestor is at `level`. The first
/// switch is part of NCCL's own constants.
pub(super) fn wires(topology: &Topology, level: LevelIndex) -> f64 {
    let levels = level.0 + 1..topology.island_level().0;
    levels.map(|level| 2.0 * topology.levels()[level as usize].uplink.latency).sum()
}

fn wider(narrowest: Narrowest, other: Narrowest) -> Narrowest {
    if other.0 > narrowest.0 { other } else { narrowest }
}

impl Facts {
    pub(super) fn of(model: &CostModel<'_>, layout: &Layout) -> Self {
        let topology = model.topology;
        let island_level = topology.island_level();
        let mut facts = Self {
            ranks: f64::from(layout.ranks),
            islands: layout.islands.len() as f64,
            widest: layout.islands.iter().map(|island| f64::from(island.ranks)).fold(0.0, f64::max),
            even: layout.islands.windows(2).all(|pair| pair[0].ranks == pair[1].ranks),
            inside: Hardware::NvLink,
            inside_ring: (0.0, None),
            nvls: Some((0.0, None)),
            low_latency: f64::INFINITY,
            ring: (0.0, None),
            tree: (0.0, None),
            ring_wires: 0.0,
            tree_wires: 0.0,
        };
        for island in &layout.islands {
            for host in &island.hosts {
                facts.look_inside(model, island.ranks, island.hosts.len() > 1, *host);
            }
        }
        let bandwidth = |domain| model.bandwidth(layout, domain);
        for (domain, crossings) in layout.ring_crossings(topology) {
            let seconds = f64::from(crossings) / bandwidth(domain) / 1e9;
            facts.ring = wider(facts.ring, (seconds, Some(Bottleneck::Uplink(domain))));
            if topology.level_of(domain) < island_level {
                facts.ring_wires += 2.0 * topology.uplink(domain).latency * f64::from(crossings);
            }
        }
        for (domain, edges) in layout.tree_crossings(topology) {
            let seconds = f64::from(edges) * 0.5 / bandwidth(domain) / 1e9;
            facts.tree = wider(facts.tree, (seconds, Some(Bottleneck::Uplink(domain))));
        }
        let common = topology.common_ancestor(layout.islands.iter().map(|island| island.position));
        facts.tree_wires = wires(topology, topology.level_of(common));
        facts
    }

    fn look_inside(
        &mut self,
        model: &CostModel<'_>,
        island_ranks: u32,
        several_hosts: bool,
        (position, ranks, gpus): (crate::tree::Position, u32, GpuSet),
    ) {
        let interior = model.hosts.interior(position);
        let accelerator = interior.accelerator();
        let index = (self.islands as usize).clamp(1, 3) - 1;
        self.low_latency = self.low_latency.min(accelerator.low_latency[index]);
        if island_ranks < 2 {
            self.nvls = None;
            return;
        }
        // Ranks that share a GPU or have none pass their data through the host.
        let own_gpus = gpus.and(GpuSet::first(interior.gpu_count())).len() == ranks as usize;
        let ring = interior.ring_bandwidth(gpus);
        let nvlink = accelerator.nvlink_total();
        let bandwidth = match (own_gpus, several_hosts) {
            (false, _) => accelerator.socket,
            (true, true) => ring.min(nvlink),
            (true, false) => ring,
        };
        let bottleneck = Some(Bottleneck::Inside(position));
        if bandwidth > 0.0 {
            self.inside_ring = wider(self.inside_ring, (1.0 / bandwidth / 1e9, bottleneck));
        }
        let all_links = own_gpus && nvlink > 0.0 && bandwidth >= nvlink * 0.999;
        if !(own_gpus && nvlink > 0.0 && bandwidth > accelerator.pcie) {
            self.inside = Hardware::Pcie;
        }
        self.nvls = match (self.nvls, accelerator.nvls) {
            (Some(slowest), Some(efficiency)) if all_links => {
                let seconds = 1.0 / (nvlink * efficiency * constants::NVLS) / 1e9;
                Some(wider(slowest, (seconds, bottleneck)))
            }
            _ => None,
        };
    }

    /// The quickest way to do a collective over rings or trees.
    pub(super) fn quickest(&self, collective: Collective, bytes: u64) -> Prediction {
        const ALGORITHMS: [Algorithm; 5] =
            [Algorithm::Ring, Algorithm::Tree, Algorithm::Nvls, Algorithm::NvlsTree, Algorithm::Hierarchical];
        let mut best = Prediction { seconds: f64::INFINITY, ..Prediction::NOTHING };
        for algorithm in ALGORITHMS {
            for protocol in constants::PROTOCOLS {
                let Some((per_byte, bottleneck)) = self.per_byte(collective, algorithm, protocol) else {
                    continue;
                };
                let latency = self.latency(collective, algorithm, protocol) / 1e6;
                let seconds = latency + bytes as f64 * per_byte;
                if seconds < best.seconds {
                    best = Prediction { seconds, algorithm, protocol, bottleneck, latency };
                }
            }
        }
        best
    }

    /// Seconds per byte, none when the combination does not exist.
    fn per_byte(
        &self,
        collective: Collective,
        algorithm: Algorithm,
        protocol: Protocol,
    ) -> Option<Narrowest> {
        let simple = protocol == Protocol::Simple;
        let reduce = collective == Collective::AllReduce;
        let several = self.islands > 1.0;
        if protocol == Protocol::LowLatency128 && self.inside != Hardware::NvLink {
            return None;
        }
        let rounds = if reduce { 2.0 } else { 1.0 };
        let (narrowest, share) = match algorithm {
            Algorithm::Ring => {
                let steps = rounds * (self.ranks - 1.0) / self.ranks;
                let (seconds, at) = wider(self.inside_ring, self.ring);
                let capped = match protocol {
                    Protocol::LowLatency => {
                        (seconds / constants::LOW_LATENCY).max(1.0 / self.low_latency / 1e9)
                    }
                    Protocol::LowLatency128 => seconds / constants::LOW_LATENCY_128,
                    Protocol::Simple => seconds,
                };
                ((capped * steps, at), 1.0)
            }
            Algorithm::Tree if reduce => {
                let inside = (2.0 * self.inside_ring.0, self.inside_ring.1);
                let share = match protocol {
                    Protocol::LowLatency => constants::LOW_LATENCY_TREE,
                    Protocol::LowLatency128 if several => constants::LOW_LATENCY_128,
                    Protocol::LowLatency128 => constants::LOW_LATENCY_128_TREE,
                    Protocol::Simple => 1.0,
                };
                (wider(inside, self.tree), share * constants::TREE)
            }
            Algorithm::Nvls if reduce && simple && !several => (self.nvls?, 1.0),
            Algorithm::NvlsTree if reduce && simple && several => {
                let (seconds, at) = self.tree;
                (wider(self.nvls?, (seconds / constants::TREE, at)), 1.0)
            }
            Algorithm::Hierarchical if simple && several && self.even && self.widest > 1.0 => {
                let inside = rounds * (self.widest - 1.0) / self.widest * self.inside_ring.0;
                let between = rounds * (self.islands - 1.0) / self.islands * self.ring.0;
                let slower = if inside > between { self.inside_ring.1 } else { self.ring.1 };
                ((inside + between, slower), 1.0)
            }
            _ => return None,
        };
        Some((narrowest.0 / share, narrowest.1))
    }

    /// Microseconds that do not depend on the bytes.
    fn latency(&self, collective: Collective, algorithm: Algorithm, protocol: Protocol) -> f64 {
        let several = self.islands > 1.0;
        let hop = |hardware| constants::hop(algorithm, protocol, hardware);
        let slower =
            if several && protocol == Protocol::LowLatency { constants::LOW_LATENCY_INSIDE } else { 1.0 };
        let (inside, between) = (hop(self.inside) * slower, hop(Hardware::Network));
        let rounds = if collective == Collective::AllReduce { 2.0 } else { 1.0 };
        let ring_wires = rounds * self.ring_wires * (self.islands - 1.0) / self.islands;
        constants::base(algorithm, protocol)
            + match algorithm {
                Algorithm::Ring => {
                    let hops = rounds * (self.islands - 1.0);
                    (rounds * (self.ranks - 1.0) - hops) * inside + hops * between + ring_wires
                }
                Algorithm::Tree => {
                    2.0 * ((self.widest - 1.0) * inside + self.islands.log2() * between + self.tree_wires)
                }
                Algorithm::Nvls => inside,
                Algorithm::NvlsTree => inside + 2.0 * (self.islands.log2() * between + self.tree_wires),
                Algorithm::Hierarchical | Algorithm::Pairwise => {
                    rounds * ((self.widest - 1.0) * inside + (self.islands - 1.0) * between) + ring_wires
                }
            }
    }
}

impl CostModel<'_> {
    /// Bytes that leave each domain when every rank sends an equal part of `bytes` to every rank.
    pub(super) fn pair_flows(&self, layout: &Layout, bytes: f64) -> Vec<(DomainId, f64)> {
        let topology = self.topology;
        let mut ranks = std::collections::BTreeMap::<DomainId, u32>::new();
        for island in &layout.islands {
            for level in (1..=topology.island_level().0).map(LevelIndex) {
                *ranks.entry(topology.domain_at(level, island.position)).or_default() += island.ranks;
            }
        }
        let all = f64::from(layout.ranks);
        let crossing = ranks.into_iter().filter(|(_, inside)| *inside < layout.ranks);
        crossing
            .map(|(domain, inside)| (domain, f64::from(inside) * (all - f64::from(inside)) / all * bytes))
            .collect()
    }

    /// Every rank with every other: all links work at once, the slowest decides.
    pub(super) fn pairwise(&self, layout: &Layout, bytes: u64) -> Prediction {
        let facts = Facts::of(self, layout);
        let own = (facts.widest - 1.0) / facts.ranks;
        let mut slowest = (facts.inside_ring.0 * own, facts.inside_ring.1);
        for (domain, share) in self.pair_flows(layout, 1.0) {
            let bandwidth = self.bandwidth(layout, domain);
            slowest = wider(slowest, (share / bandwidth / 1e9, Some(Bottleneck::Uplink(domain))));
        }
        let mut best = Prediction { seconds: f64::INFINITY, ..Prediction::NOTHING };
        for (protocol, share) in [(Protocol::LowLatency, constants::LOW_LATENCY), (Protocol::Simple, 1.0)] {
            let hop = |hardware| constants::hop(Algorithm::Pairwise, protocol, hardware);
            let inside = (facts.widest - 1.0) * hop(facts.inside);
            let between = (facts.ranks - facts.widest) * hop(Hardware::Network);
            let latency = constants::base(Algorithm::Pairwise, protocol)
                + (inside + between) / constants::CONCURRENT_SENDS
                + facts.tree_wires;
            let seconds = latency / 1e6 + bytes as f64 * slowest.0 / share;
            if seconds < best.seconds {
                best = Prediction {
                    seconds,
                    algorithm: Algorithm::Pairwise,
                    protocol,
                    bottleneck: slowest.1,
                    latency: latency / 1e6,
                };
            }
        }
        best
    }
}
