//! What a collective costs on a placement, by NCCL's α–β model.
//!
//! Time is latency (α: a base, and a part for every hop) plus bytes over bandwidth (β: the narrowest link on the
//! way), and the least over algorithms and protocols counts, as in NCCL's own tuner. Bandwidths of links between
//! hosts come from the [`Topology`], of links inside from the [`Hosts`], and what running jobs leave of shared
//! uplinks from the [`Load`].
//!
//! # What is modelled how
//! * An *island* is a host, or several that NVLink connects. A collective visits islands in the order in which
//!   ranks first name them, as NCCL does, and the ranks of an island together.
//! * A job gets of its host's network cards what its GPUs are of all the host's GPUs.
//! * A ring sends its bytes over every uplink as often as it leaves the domain. A tree is NCCL's pair of binary
//!   trees over the islands, of which each carries half.
//! * In-switch reduction ([`Algorithm::Nvls`]) needs NVLink between all ranks and hardware that can.

mod constants;
mod estimate;
mod evaluate;
mod groups;
mod hosts;
mod layout;
mod load;
#[cfg(test)]
mod tests;

pub use estimate::Estimator;
pub use hosts::Hosts;
pub use load::{JobTraffic, Load};
use thiserror::Error;

use crate::interior::MAX_GPUS;
use crate::tree::{DomainId, Position, Topology};
use evaluate::Facts;
use layout::Layout;

/// A collective operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Collective {
    /// Every rank gets the sum of all ranks' buffers.
    AllReduce,
    /// Every rank gets all ranks' parts; bytes are those of all parts together.
    AllGather,
    /// Every rank gets its part of the sum; bytes are those of the whole buffer.
    ReduceScatter,
    /// Every rank sends another part to every rank; bytes are those of one rank's whole buffer.
    AllToAll,
}

/// How the ranks work together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// A ring over all ranks.
    Ring,
    /// A chain inside each island, two binary trees between them.
    Tree,
    /// Reduction in the NVLink switch of one island.
    Nvls,
    /// The same in every island, trees between them.
    NvlsTree,
    /// Reduce-scatter inside, rings between the islands, all-gather inside.
    Hierarchical,
    /// Every rank with every other.
    Pairwise,
}

/// How ranks pass data on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Flags in every 8 bytes: least latency, half the bandwidth.
    LowLatency,
    /// Flags in every 128 bytes; over NVLink only.
    LowLatency128,
    /// Plain copies with fences.
    Simple,
}

/// Where one rank runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// The node.
    pub position: Position,
    /// The GPU's index in the node.
    pub gpu: u16,
}

/// The link that limits a collective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bottleneck {
    /// The link from this domain to the one above.
    Uplink(DomainId),
    /// The links between GPUs inside this node.
    Inside(Position),
}

impl Bottleneck {
    /// In words: `uplink of rack r1`, `inside host node-3`.
    pub fn describe(self, topology: &Topology) -> String {
        match self {
            Self::Uplink(domain) => {
                let level = &topology.levels()[topology.level_of(domain).index()].name;
                format!("uplink of {level} {}", topology.path(domain))
            }
            Self::Inside(position) => format!("inside host {}", topology.node_name(position)),
        }
    }
}

/// What a collective is expected to take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Seconds from the first byte to the last.
    pub seconds: f64,
    /// The quickest algorithm.
    pub algorithm: Algorithm,
    /// Its quickest protocol.
    pub protocol: Protocol,
    /// The narrowest link, none for a single rank.
    pub bottleneck: Option<Bottleneck>,
    /// The part of the seconds that does not depend on the bytes.
    pub latency: f64,
}

impl Prediction {
    /// What a single rank takes: nothing.
    const NOTHING: Self = Self {
        seconds: 0.0,
        algorithm: Algorithm::Ring,
        protocol: Protocol::Simple,
        bottleneck: None,
        latency: 0.0,
    };

    /// GB/s by the convention of nccl-tests ("busbw"), which can be compared across numbers of ranks.
    pub fn bus_bandwidth(&self, collective: Collective, bytes: u64, ranks: usize) -> f64 {
        let share = (ranks.max(1) - 1) as f64 / ranks.max(1) as f64;
        let factor = if collective == Collective::AllReduce { 2.0 * share } else { share };
        if self.seconds > 0.0 { bytes as f64 * factor / self.seconds / 1e9 } else { 0.0 }
    }
}

/// Why there is no prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CostError {
    /// A rank stands on no node of the topology.
    #[error("rank {rank} is at position {position}, but the topology ends at {nodes}")]
    UnknownPosition {
        /// The rank.
        rank: usize,
        /// Where it is said to be.
        position: u32,
        /// How many nodes there are.
        nodes: usize,
    },
    /// A rank's GPU is beyond what nodes have.
    #[error("rank {rank} has GPU {gpu}, but a node has at most {MAX_GPUS}")]
    UnknownGpu {
        /// The rank.
        rank: usize,
        /// Its GPU.
        gpu: u16,
    },
}

/// Predicts the time of collectives.
#[derive(Debug, Clone, Copy)]
pub struct CostModel<'a> {
    topology: &'a Topology,
    hosts: &'a Hosts,
    load: Option<&'a Load>,
    network_efficiency: f64,
}

impl<'a> CostModel<'a> {
    /// A model of an idle network of which collectives get 95 %, as of InfiniBand.
    pub fn new(topology: &'a Topology, hosts: &'a Hosts) -> Self {
        Self { topology, hosts, load: None, network_efficiency: 0.95 }
    }

    /// The same with what other jobs send.
    #[must_use]
    pub fn with_load(self, load: &'a Load) -> Self {
        Self { load: Some(load), ..self }
    }

    /// The same with another usable share of the network's bandwidth, such as 0.87 for RoCE; kept within 0.01 to 1.
    #[must_use]
    pub fn with_network_efficiency(self, share: f64) -> Self {
        Self { network_efficiency: share.clamp(0.01, 1.0), ..self }
    }

    /// The time of a collective of so many bytes between ranks in these slots (the index is the rank).
    pub fn predict(
        &self,
        collective: Collective,
        bytes: u64,
        slots: &[Slot],
    ) -> Result<Prediction, CostError> {
        let layout = Layout::new(self, slots)?;
        Ok(self.evaluate(&layout, collective, bytes))
    }

    fn evaluate(&self, layout: &Layout, collective: Collective, bytes: u64) -> Prediction {
        if layout.ranks < 2 {
            return Prediction::NOTHING;
        }
        match collective {
            Collective::AllToAll => self.pairwise(layout, bytes),
            _ => Facts::of(self, layout).quickest(collective, bytes),
        }
    }

    /// What a job sends over each uplink that it shares with others, when it spends `share` of its time (0 to 1) in
    /// this collective. To be added to a [`Load`] when the job starts and taken off it when it ends.
    pub fn traffic(
        &self,
        collective: Collective,
        bytes: u64,
        slots: &[Slot],
        share: f64,
    ) -> Result<JobTraffic, CostError> {
        let layout = Layout::new(self, slots)?;
        let prediction = self.evaluate(&layout, collective, bytes);
        let bytes = bytes as f64;
        let rounds = if collective == Collective::AllReduce { 2.0 } else { 1.0 };
        let around = |members: usize| rounds * (members.max(1) - 1) as f64 / members.max(1) as f64 * bytes;
        let crossings = |counts: Vec<(DomainId, u32)>, bytes: f64| -> Vec<(DomainId, f64)> {
            counts.into_iter().map(|(domain, count)| (domain, f64::from(count) * bytes)).collect()
        };
        let flows = match prediction.algorithm {
            Algorithm::Pairwise => self.pair_flows(&layout, bytes),
            Algorithm::Tree | Algorithm::Nvls | Algorithm::NvlsTree => {
                crossings(layout.tree_crossings(self.topology), 0.5 * bytes)
            }
            Algorithm::Ring => crossings(layout.ring_crossings(self.topology), around(slots.len())),
            Algorithm::Hierarchical => {
                crossings(layout.ring_crossings(self.topology), around(layout.islands.len()))
            }
        };
        let rate =
            if prediction.seconds > 0.0 { share.clamp(0.0, 1.0) / prediction.seconds / 1e9 } else { 0.0 };
        let island = self.topology.island_level();
        let shared = flows.into_iter().filter(|(domain, _)| self.topology.level_of(*domain) < island);
        Ok(JobTraffic::new(shared.map(|(domain, bytes)| (domain, bytes * rate))))
    }

    /// GB/s that this job can send out of a domain.
    fn bandwidth(&self, layout: &Layout, domain: DomainId) -> f64 {
        if self.topology.level_of(domain) < self.topology.island_level() {
            self.shared_bandwidth(domain)
        } else {
            self.island_bandwidth(domain, layout.ranks_of(domain))
        }
    }

    /// GB/s that this job can send over an uplink that it shares with others.
    fn shared_bandwidth(&self, domain: DomainId) -> f64 {
        let whole = self.topology.uplink(domain).bandwidth * self.network_efficiency;
        self.load.map_or(whole, |load| load.left(domain, whole))
    }

    /// GB/s that a job with so many of an island's GPUs can send out of it.
    fn island_bandwidth(&self, domain: DomainId, gpus: u32) -> f64 {
        let all = self.hosts.gpus_in(&self.topology.positions(domain));
        let share = if all == 0 { 1.0 } else { (f64::from(gpus) / f64::from(all)).min(1.0) };
        self.topology.uplink(domain).bandwidth * self.network_efficiency * share
    }
}
