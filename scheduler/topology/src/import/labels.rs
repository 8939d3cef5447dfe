//! The tree from node labels.
//!
//! # Which labels count
//! From the root inwards: region, zone, the levels of one *family* of fabric labels, the NVLink domain, host.
//! A level exists when at least one node has one of its labels. Of the families the first that any node has is
//! taken, because two families describe the same switches twice:
//!
//! | order | family | labels, outermost first |
//! |---|---|---|
//! | 1 | Muster, written by an administrator | `muster.dev/spine`, `muster.dev/block`, `muster.dev/rack` |
//! | 2 | topograph since 2026 | `fabric.topograph.run/tier-N`, the highest N first |
//! | 3 | topograph before | `network.topology.nvidia.com/` `core` or `datacenter`, `spine`, `leaf` or `block` |
//! | 4 | AWS | `topology.k8s.aws/network-node-layer-1`, `-2`, `-3` |
//! | 5 | Google | `cloud.google.com/gce-topology-block`, `-subblock` |
//! | 6 | Oracle | `oci.oraclecloud.com/host.network_block_id`, `host.rack_id` |
//!
//! NVLink domains across hosts: `accelerator.topograph.run/domain`, else `network.topology.nvidia.com/accelerator`,
//! else `topology.k8s.aws/ultraserver-id`; inside it `accelerator.topograph.run/sub-domain`, else
//! `nvidia.com/gpu.clique`. When both say the same, one level is made of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::link::UplinkRule;
use crate::tree::{BuildError, Level, NodeEntry, SharedNames, Topology};

/// The label that names a host.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// The label that names a zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// Muster's own label that names a rack.
pub const RACK: &str = "muster.dev/rack";

/// The label that names the GPU model.
pub const PRODUCT: &str = "nvidia.com/gpu.product";

/// Labels of a node as Kubernetes has them.
pub type Labels = BTreeMap<String, String>;

const TIER: &str = "fabric.topograph.run/tier-";
const GPU_COUNT: &str = "nvidia.com/gpu.count";

/// GB/s per GPU and direction between the hosts of an NVLink domain; only Blackwell and later have such domains.
const NVLINK_PER_GPU: f64 = 721.8;

/// A level's name and its labels.
pub(super) type Candidate = (&'static str, &'static [&'static str]);

const PLACES: [Candidate; 2] = [("region", &["topology.kubernetes.io/region"]), ("zone", &[ZONE])];

pub(super) const MUSTER: [Candidate; 3] =
    [("spine", &["muster.dev/spine"]), ("block", &["muster.dev/block"]), ("rack", &[RACK])];

const FAMILIES: [&[Candidate]; 4] = [
    &[
        ("core", &["network.topology.nvidia.com/core", "network.topology.nvidia.com/datacenter"]),
        ("spine", &["network.topology.nvidia.com/spine"]),
        ("leaf", &["network.topology.nvidia.com/leaf", "network.topology.nvidia.com/block"]),
    ],
    &[
        ("layer-1", &["topology.k8s.aws/network-node-layer-1"]),
        ("layer-2", &["topology.k8s.aws/network-node-layer-2"]),
        ("layer-3", &["topology.k8s.aws/network-node-layer-3"]),
    ],
    &[
        ("block", &["cloud.google.com/gce-topology-block"]),
        ("subblock", &["cloud.google.com/gce-topology-subblock"]),
    ],
    &[
        ("block", &["oci.oraclecloud.com/host.network_block_id"]),
        ("rack", &["oci.oraclecloud.com/host.rack_id"]),
    ],
];

const ACCELERATOR: Candidate = (
    "accelerator",
    &[
        "accelerator.topograph.run/domain",
        "network.topology.nvidia.com/accelerator",
        "topology.k8s.aws/ultraserver-id",
    ],
);

const CLIQUE: Candidate = ("clique", &["accelerator.topograph.run/sub-domain", "nvidia.com/gpu.clique"]);

impl Topology {
    /// The tree that the labels of these nodes describe, by the rules of [`crate::import::labels`].
    pub fn from_labels(nodes: &[(&str, &Labels)]) -> Result<Self, BuildError> {
        let levels = detect(nodes.iter().map(|(_, labels)| *labels));
        let entries = entries(&levels, nodes);
        Self::build(levels, &entries, SharedNames::Distinct)
    }
}

/// The levels for which these nodes have labels, root and host included.
pub fn detect<'a>(nodes: impl Iterator<Item = &'a Labels> + Clone) -> Vec<Level> {
    let keys: BTreeSet<&str> = nodes.clone().flat_map(|labels| labels.keys().map(String::as_str)).collect();
    let present = |candidates: &[Candidate]| -> Vec<Level> {
        let known = candidates.iter().filter(|(_, labels)| labels.iter().any(|key| keys.contains(key)));
        known.map(|(name, labels)| Level::new(*name, labels)).collect()
    };
    let mut levels = present(&PLACES);
    let families = [present(&MUSTER), tiers(&keys)].into_iter();
    let fabric =
        families.chain(FAMILIES.iter().map(|family| present(family))).find(|family| !family.is_empty());
    levels.extend(fabric.unwrap_or_default());
    let mut nvlink = present(&[ACCELERATOR, CLIQUE]);
    if nvlink.len() == 2 && same_partition(nodes, &nvlink[0], &nvlink[1]) {
        nvlink.remove(0);
    }
    let linked = !nvlink.is_empty();
    levels.extend(nvlink);
    let mut levels = Level::between_cluster_and_host(levels);
    if let Some(host) = levels.last_mut().filter(|_| linked) {
        host.uplink = UplinkRule::nvlink(NVLINK_PER_GPU);
    }
    levels
}

/// What the levels' labels say of each node.
pub fn entries<'a>(levels: &[Level], nodes: &[(&'a str, &'a Labels)]) -> Vec<NodeEntry<'a>> {
    let inner = levels.get(1..levels.len().saturating_sub(1)).unwrap_or_default();
    let entry = |(name, labels): &(&'a str, &'a Labels)| NodeEntry {
        name,
        path: inner.iter().map(|level| value(level, labels)).collect(),
        gpus: labels.get(GPU_COUNT).and_then(|count| count.parse().ok()).unwrap_or(0),
        network: None,
    };
    nodes.iter().map(entry).collect()
}

/// The value of the first of the level's labels that is there and not empty.
fn value<'a>(level: &Level, labels: &'a Labels) -> Option<&'a str> {
    level.keys.iter().find_map(|key| labels.get(key).map(String::as_str).filter(|value| !value.is_empty()))
}

/// Topograph's tiers, outermost first.
fn tiers(keys: &BTreeSet<&str>) -> Vec<Level> {
    let number = |key: &&str| key.strip_prefix(TIER)?.parse::<u8>().ok();
    let numbers: BTreeSet<u8> = keys.iter().filter_map(number).collect();
    let level = |tier: u8| Level::new(format!("tier-{tier}"), &[&format!("{TIER}{tier}")]);
    numbers.into_iter().rev().map(level).collect()
}

/// Whether two levels divide the nodes alike.
fn same_partition<'a>(nodes: impl Iterator<Item = &'a Labels>, outer: &Level, inner: &Level) -> bool {
    let pairs: BTreeSet<_> = nodes.map(|labels| (value(outer, labels), value(inner, labels))).collect();
    let outer: BTreeSet<_> = pairs.iter().map(|pair| pair.0).collect();
    let inner: BTreeSet<_> = pairs.iter().map(|pair| pair.1).collect();
    pairs.len() == outer.len() && pairs.len() == inner.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn names(levels: &[Level]) -> Vec<&str> {
        levels.iter().map(|level| level.name.as_str()).collect()
    }

    #[test]
    fn topograph_tiers_of_any_depth_are_ordered_from_the_core_inwards() {
        let node = labels(&[
            ("fabric.topograph.run/tier-0", "leaf-1"),
            ("fabric.topograph.run/tier-10", "core"),
            ("fabric.topograph.run/tier-2", "spine-1"),
            ("fabric.topograph.run/tier-x", "no number"),
            ("network.topology.nvidia.com/spine", "described twice"),
            ("topology.kubernetes.io/zone", "a"),
        ]);
        assert_eq!(
            names(&detect([&node].into_iter())),
            ["cluster", "zone", "tier-10", "tier-2", "tier-0", "host"]
        );
    }

    #[test]
    fn the_older_topograph_labels_and_their_synonyms() {
        let (old, newer) = (
            labels(&[
                ("network.topology.nvidia.com/block", "l1"),
                ("network.topology.nvidia.com/datacenter", "c1"),
            ]),
            labels(&[("network.topology.nvidia.com/leaf", "l1"), ("network.topology.nvidia.com/core", "c1")]),
        );
        let topology = Topology::from_labels(&[("a", &old), ("b", &newer)]).unwrap();
        assert_eq!(names(topology.levels()), ["cluster", "core", "leaf", "host"]);
        assert_eq!(topology.domains(topology.level_named("leaf").unwrap()).len(), 1);
    }

    #[test]
    fn clouds() {
        for (label, level) in [
            ("topology.k8s.aws/network-node-layer-3", "layer-3"),
            ("cloud.google.com/gce-topology-subblock", "subblock"),
            ("oci.oraclecloud.com/host.rack_id", "rack"),
            ("muster.dev/rack", "rack"),
        ] {
            let node = labels(&[(label, "x"), (HOSTNAME, "h")]);
            assert_eq!(names(&detect([&node].into_iter())), ["cluster", level, "host"], "{label}");
        }
        assert_eq!(names(&detect([].into_iter())), ["cluster", "host"]);
    }

    #[test]
    fn cliques_link_hosts_by_nvlink() {
        let clique = |id: &str| labels(&[("nvidia.com/gpu.clique", id), ("nvidia.com/gpu.count", "4")]);
        let (first, second, none) = (clique("u.1"), clique("u.2"), labels(&[("nvidia.com/gpu.count", "8")]));
        let topology =
            Topology::from_labels(&[("a", &first), ("b", &first), ("c", &second), ("d", &none)]).unwrap();
        assert_eq!(names(topology.levels()), ["cluster", "clique", "host"]);
        assert_eq!(topology.island_level(), topology.level_named("clique").unwrap());
        let host = topology.host(topology.position_named("a").unwrap());
        assert!((topology.uplink(host).bandwidth - 4.0 * NVLINK_PER_GPU).abs() < 1e-9);
        let clique = topology.parent(host).unwrap();
        assert!((topology.uplink(clique).bandwidth - 8.0 * 50.0).abs() < 1e-9);
    }

    #[test]
    fn domain_and_clique_become_one_level_unless_they_differ() {
        let node = |domain: &str, clique: &str| {
            labels(&[("accelerator.topograph.run/domain", domain), ("nvidia.com/gpu.clique", clique)])
        };
        let same = [node("d1", "u.1"), node("d2", "u.2")];
        assert_eq!(names(&detect(same.iter())), ["cluster", "clique", "host"]);
        let split = [node("d1", "u.1"), node("d1", "u.2")];
        assert_eq!(names(&detect(split.iter())), ["cluster", "accelerator", "clique", "host"]);
    }
}
