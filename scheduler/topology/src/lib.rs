//! Where nodes and GPUs are: one tree of domains and links, its importers, and what collectives cost on it.
//!
//! Pure: no clock, no IO, and the same input always gives the same answer.
//!
//! * [`Topology`] is the tree: cluster, spines, racks, hosts, to any depth, with the bandwidth of every uplink.
//! * [`import`] makes it from node labels and from what Kueue, Volcano and Slurm write down.

pub mod import;
mod link;
mod tree;

pub use link::{Capacity, Fabric, Link, UplinkRule};
pub use tree::{
    BuildError, DomainId, Domains, Irregularity, Level, LevelIndex, NodeEntry, Position, SharedNames,
    Topology,
};
