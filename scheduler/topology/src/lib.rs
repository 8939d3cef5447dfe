//! Where nodes and GPUs are: one tree of domains and links, its importers, and what collectives cost on it.
//!
//! Pure: no clock, no IO, and the same input always gives the same answer.
//!
//! * [`Topology`] is the tree: cluster, spines, racks, hosts, to any depth, with the bandwidth of every uplink.
//! * [`NodeInterior`] is the inside of a node: which GPUs see each other how, and which of the free ones to take.
//! * [`CostModel`] predicts what a collective takes on a placement, [`Estimator`] quickly from counts alone.
//! * [`order_ranks`] says which rank goes into which slot, so that a ring leaves each domain once.
//! * [`import`] makes it from node labels and from what Kueue, Volcano and Slurm write down; [`draw`] shows it.

pub mod cost;
pub mod draw;
pub mod import;
pub mod interior;
mod link;
mod ranks;
mod tree;

pub use cost::{
    Algorithm, Bottleneck, Collective, CostError, CostModel, Estimator, Hosts, JobTraffic, Load, Prediction,
    Protocol, Slot,
};
pub use interior::{Accelerator, GpuSet, LinkKind, NodeInterior};
pub use link::{Capacity, Fabric, Link, UplinkRule};
pub use ranks::{
    Dimension, GroupShape, ShapeError, group_crossings, order_ranks, ring_crossings, weighted_crossings,
};
pub use tree::{
    BuildError, DomainId, Domains, Irregularity, Level, LevelIndex, NodeEntry, Position, SharedNames,
    Topology,
};
