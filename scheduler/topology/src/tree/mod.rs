//! The tree of domains over nodes.
//!
//! Nodes are numbered depth-first, so every domain is a contiguous range of [`Position`]s, and the domains of a
//! level and the children of a domain are contiguous ranges of [`DomainId`]s. All of it lies in a few arrays.

mod build;
mod natural;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use build::{BuildError, Irregularity, NodeEntry, SharedNames};
pub(crate) use natural::compare as natural_order;

use crate::link::{Link, UplinkRule};

/// A domain: dense, the root is 0, the levels follow one another from root to hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u32);

/// A level of the tree: 0 is the root's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LevelIndex(pub u8);

/// A node's place in depth-first order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u32);

impl DomainId {
    /// The root of every topology.
    pub const ROOT: Self = Self(0);

    /// As an index into an array with one entry per domain.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl LevelIndex {
    /// The root's level.
    pub const ROOT: Self = Self(0);

    /// As an index into [`Topology::levels`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl Position {
    /// As an index into an array with one entry per position.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A contiguous run of domains of one level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domains(Range<u32>);

impl Domains {
    /// The same as a range of indices into an array with one entry per domain.
    pub fn indices(&self) -> Range<usize> {
        self.0.start as usize..self.0.end as usize
    }

    /// Whether a domain is one of them.
    pub fn contains(&self, domain: DomainId) -> bool {
        self.0.contains(&domain.0)
    }
}

impl Iterator for Domains {
    type Item = DomainId;

    fn next(&mut self) -> Option<DomainId> {
        self.0.next().map(DomainId)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl DoubleEndedIterator for Domains {
    fn next_back(&mut self) -> Option<DomainId> {
        self.0.next_back().map(DomainId)
    }
}

impl ExactSizeIterator for Domains {}

/// A level: what its domains are called, which labels name them, and how they are linked upwards.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    /// A short word: `cluster`, `spine`, `rack`, `host`.
    pub name: String,
    /// Node labels that name the domain; the first that a node has counts. Empty for levels not from labels.
    pub keys: Vec<String>,
    /// The uplinks of the level's domains. Of no effect at the root.
    pub uplink: UplinkRule,
}

impl Level {
    /// A level without oversubscription.
    pub fn new(name: impl Into<String>, keys: &[&str]) -> Self {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        Self { name: name.into(), keys, uplink: UplinkRule::FULL }
    }

    /// The same with other uplinks.
    #[must_use]
    pub fn with_uplink(mut self, uplink: UplinkRule) -> Self {
        self.uplink = uplink;
        self
    }

    /// The given levels with a root `cluster` above them and `host` below.
    pub fn between_cluster_and_host(inner: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut levels = vec![Self::new("cluster", &[])];
        levels.extend(inner);
        levels.push(Self::new("host", &[crate::import::labels::HOSTNAME]));
        levels
    }
}

/// An immutable tree of domains over nodes.
///
/// A node that joins, leaves or changes its labels means a new tree: building one for 5,000 nodes takes a few
/// milliseconds, and a tree that never changes can be shared between threads and hypothetical futures.
/// [`Topology::same_domain`] and [`Topology::position_named`] carry state from an old tree to a new one.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    levels: Vec<Level>,
    /// The first domain of each level, and the number of domains at the end.
    starts: Vec<u32>,
    /// Per domain; the root is its own parent.
    parents: Vec<u32>,
    /// Per domain, and the number of domains at the end.
    first_child: Vec<u32>,
    /// Per domain, half open.
    spans: Vec<(u32, u32)>,
    /// Per domain.
    names: Vec<Box<str>>,
    /// Per domain.
    links: Vec<Link>,
    /// The domain of each position, one row per level.
    at: Vec<u32>,
    /// The caller's index of each position, and back.
    node_at: Vec<u32>,
    position_of: Vec<u32>,
    /// Positions in the order of their nodes' names.
    by_name: Vec<u32>,
    irregularities: Vec<Irregularity>,
}

impl Topology {
    /// The levels, root first and hosts last.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// Every level's index, root first.
    pub fn level_indices(&self) -> impl DoubleEndedIterator<Item = LevelIndex> + use<> {
        (0..self.levels.len() as u8).map(LevelIndex)
    }

    /// The hosts' level.
    pub fn host_level(&self) -> LevelIndex {
        LevelIndex(self.levels.len() as u8 - 1)
    }

    /// The level of a name or of a label key.
    pub fn level_named(&self, name: &str) -> Option<LevelIndex> {
        self.level_indices().find(|level| {
            let level = &self.levels[level.index()];
            level.name == name || level.keys.iter().any(|key| key == name)
        })
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.node_at.len()
    }

    /// How many domains there are on all levels together.
    pub fn domain_count(&self) -> usize {
        self.parents.len()
    }

    /// The domains of a level in depth-first order; none beyond the last level.
    pub fn domains(&self, level: LevelIndex) -> Domains {
        match self.starts.get(level.index()..level.index() + 2) {
            Some(&[start, end]) => Domains(start..end),
            _ => Domains(0..0),
        }
    }

    /// The domain above, none for the root.
    pub fn parent(&self, domain: DomainId) -> Option<DomainId> {
        (domain != DomainId::ROOT).then(|| DomainId(self.parents[domain.index()]))
    }

    /// The domains directly below, none for a host.
    pub fn children(&self, domain: DomainId) -> Domains {
        Domains(self.first_child[domain.index()]..self.first_child[domain.index() + 1])
    }

    /// The positions of the domain's nodes.
    pub fn positions(&self, domain: DomainId) -> Range<u32> {
        let (start, end) = self.spans[domain.index()];
        start..end
    }

    /// The level a domain stands on.
    pub fn level_of(&self, domain: DomainId) -> LevelIndex {
        LevelIndex((self.starts.partition_point(|start| *start <= domain.0) - 1) as u8)
    }

    /// The domain's own name; for a host the node's.
    pub fn name(&self, domain: DomainId) -> &str {
        &self.names[domain.index()]
    }

    /// The names from below the root down to the domain, with slashes; the root's is its name.
    pub fn path(&self, domain: DomainId) -> String {
        let mut names = vec![self.name(domain)];
        let mut at = domain;
        while let Some(parent) = self.parent(at).filter(|parent| *parent != DomainId::ROOT) {
            names.push(self.name(parent));
            at = parent;
        }
        names.reverse();
        names.join("/")
    }

    /// The domain that a position belongs to at a level.
    pub fn domain_at(&self, level: LevelIndex, position: Position) -> DomainId {
        DomainId(self.at[level.index() * self.node_count() + position.index()])
    }

    /// The host of a position.
    pub fn host(&self, position: Position) -> DomainId {
        DomainId(self.starts[self.levels.len() - 1] + position.0)
    }

    /// The smallest domain that holds all positions; the root when there are none.
    pub fn common_ancestor(&self, positions: impl IntoIterator<Item = Position>) -> DomainId {
        let bounds = positions.into_iter().fold(None, |bounds: Option<(Position, Position)>, position| {
            let (low, high) = bounds.unwrap_or((position, position));
            Some((low.min(position), high.max(position)))
        });
        let Some((low, high)) = bounds else { return DomainId::ROOT };
        let level = self
            .level_indices()
            .rev()
            .find(|level| self.domain_at(*level, low) == self.domain_at(*level, high))
            .unwrap_or(LevelIndex::ROOT);
        self.domain_at(level, low)
    }

    /// The link to the domain above. The root's has no end of bandwidth.
    pub fn uplink(&self, domain: DomainId) -> Link {
        self.links[domain.index()]
    }

    /// The caller's index of the node at a position.
    pub fn node_at(&self, position: Position) -> usize {
        self.node_at[position.index()] as usize
    }

    /// The position of the node with this index in the caller's order.
    pub fn position_of(&self, index: usize) -> Position {
        Position(self.position_of[index])
    }

    /// The name of the node at a position.
    pub fn node_name(&self, position: Position) -> &str {
        self.name(self.host(position))
    }

    /// The position of the node with this name.
    pub fn position_named(&self, node: &str) -> Option<Position> {
        let found =
            self.by_name.binary_search_by(|position| self.node_name(Position(*position)).cmp(node)).ok()?;
        Some(Position(self.by_name[found]))
    }

    /// The domain here that has the same names from the root down as `domain` has in another tree.
    pub fn same_domain(&self, other: &Self, domain: DomainId) -> Option<DomainId> {
        let Some(above) = other.parent(domain) else { return Some(DomainId::ROOT) };
        let above = self.same_domain(other, above)?;
        self.children(above).find(|candidate| self.name(*candidate) == other.name(domain))
    }

    /// What the nodes left open or contradicted, and how it was settled.
    pub fn irregularities(&self) -> &[Irregularity] {
        &self.irregularities
    }

    /// The deepest level whose domains are linked by network; what lies inside one of them is linked by NVLink
    /// or is one host.
    pub fn island_level(&self) -> LevelIndex {
        let network = |level: &LevelIndex| {
            level.0 == 0 || self.levels[level.index()].uplink.fabric == crate::link::Fabric::Network
        };
        self.level_indices().rev().find(network).unwrap_or(LevelIndex::ROOT)
    }
}
