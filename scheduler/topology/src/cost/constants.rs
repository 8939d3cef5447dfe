//! The latencies of NCCL's tuner, in microseconds.

use super::{Algorithm, Protocol};

/// What two neighbouring ranks are linked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hardware {
    NvLink,
    Pcie,
    Network,
}

pub(super) const PROTOCOLS: [Protocol; 3] = [Protocol::LowLatency, Protocol::LowLatency128, Protocol::Simple];

/// Once per collective.
pub(super) fn base(algorithm: Algorithm, protocol: Protocol) -> f64 {
    let latencies = match algorithm {
        Algorithm::Tree => [6.8, 14.0, 8.4],
        Algorithm::Nvls | Algorithm::NvlsTree => [0.0; 3],
        Algorithm::Ring | Algorithm::Hierarchical | Algorithm::Pairwise => [6.6, 14.0, 8.4],
    };
    latencies[protocol as usize]
}

/// Once per hop.
pub(super) fn hop(algorithm: Algorithm, protocol: Protocol, hardware: Hardware) -> f64 {
    let latencies = match (algorithm, hardware) {
        (Algorithm::Tree, Hardware::NvLink) => [0.6, 1.25, 4.0],
        (Algorithm::Tree, Hardware::Pcie) => [1.0, 1.9, 4.0],
        (Algorithm::Tree, Hardware::Network) => [5.0, 8.5, 14.0],
        (Algorithm::Nvls | Algorithm::NvlsTree, Hardware::NvLink | Hardware::Pcie) => [25.0; 3],
        (Algorithm::Nvls | Algorithm::NvlsTree, Hardware::Network) => [14.0; 3],
        (_, Hardware::NvLink) => [0.6, 1.9, 3.4],
        (_, Hardware::Pcie) => [1.0, 2.5, 5.7],
        (_, Hardware::Network) => [2.7, 4.0, 14.0],
    };
    latencies[protocol as usize]
}

/// Hops inside a node take this much longer with the low-latency protocol when there are several nodes.
pub(super) const LOW_LATENCY_INSIDE: f64 = 1.8;

/// What a tree reaches of a ring's bandwidth.
pub(super) const TREE: f64 = 0.92;

/// What the 128-byte protocol reaches: 120 of 128 bytes are data, and a little is lost on the way.
pub(super) const LOW_LATENCY_128: f64 = 0.92;

/// The same for trees within one node.
pub(super) const LOW_LATENCY_128_TREE: f64 = 7.0 / 9.0;

/// What the low-latency protocol reaches: of 8 bytes 4 are data.
pub(super) const LOW_LATENCY: f64 = 0.5;

/// The same for trees.
pub(super) const LOW_LATENCY_TREE: f64 = 1.0 / 3.8;

/// Bytes per second and rank of in-switch reduction, of what the links and the switch's efficiency allow.
pub(super) const NVLS: f64 = 5.0 / 6.0;

/// Sends of a rank to several peers that are under way at once.
pub(super) const CONCURRENT_SENDS: f64 = 8.0;
