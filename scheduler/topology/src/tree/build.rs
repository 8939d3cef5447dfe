//! Building the tree from what is known of each node.

use thiserror::Error;

use super::{DomainId, Level, LevelIndex, Topology, natural_order};
use crate::link::{Capacity, Fabric, Link};

/// As deep as a tree may be.
const MAX_LEVELS: usize = 16;

/// Network cards of a node that does not say: one 400 Gb/s card per GPU.
const NETWORK_PER_GPU: f64 = 50.0;

/// Network card of a node without GPUs: 100 Gb/s.
const NETWORK_WITHOUT_GPU: f64 = 12.5;

/// A node as the tree's builder sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeEntry<'a> {
    /// The node's name, unique.
    pub name: &'a str,
    /// The names of its domains, one for every level between root and host, none where it is unknown.
    pub path: Vec<Option<&'a str>>,
    /// GPUs in the node.
    pub gpus: u32,
    /// GB/s per direction of all its network cards together; by default 50 a GPU, 12.5 without any.
    pub network: Option<f64>,
}

impl<'a> NodeEntry<'a> {
    /// A node of which only name and domains are known.
    pub fn new(name: &'a str, path: &[Option<&'a str>]) -> Self {
        Self { name, path: path.to_vec(), gpus: 0, network: None }
    }

    fn network(&self) -> f64 {
        let default =
            if self.gpus == 0 { NETWORK_WITHOUT_GPU } else { f64::from(self.gpus) * NETWORK_PER_GPU };
        self.network.unwrap_or(default)
    }
}

/// What it means when one name stands at a level under two parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SharedNames {
    /// Two domains that happen to have the same name, as `rack-0` in each of two zones.
    #[default]
    Distinct,
    /// A mistake: names are unique in their level, as names of switches are.
    Refused,
}

/// Something the nodes left open or contradicted, and that the tree settled by its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Irregularity {
    /// Nodes that do not say their domain at a level. Each stands in a domain of its own there, unless a
    /// deeper domain that it does name keeps several together.
    Missing {
        /// The level.
        level: String,
        /// How many nodes.
        nodes: usize,
        /// The first of them in the caller's order.
        example: String,
    },
    /// One name under several parents: taken as distinct domains.
    Shared {
        /// The level.
        level: String,
        /// The name.
        name: String,
        /// The paths of two of its parents.
        parents: [String; 2],
    },
}

/// Why there is no tree.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum BuildError {
    /// The number of levels is out of bounds.
    #[error("{found} levels given: a topology has 2 (root and host) to {MAX_LEVELS}")]
    LevelCount {
        /// How many there are.
        found: usize,
    },
    /// A level has no name, or the name of another.
    #[error("level {index} is called {name:?}: every level needs a name of its own")]
    LevelName {
        /// Which level, the root is 0.
        index: usize,
        /// Its name.
        name: String,
    },
    /// A level's uplinks are no sensible amount.
    #[error("{field} of level {level:?} must be a finite number above zero")]
    Uplink {
        /// The level's name.
        level: String,
        /// The field.
        field: &'static str,
    },
    /// A node without a name.
    #[error("node {index} has no name")]
    Unnamed {
        /// Its index.
        index: usize,
    },
    /// Two nodes with one name.
    #[error("nodes {first} and {second} are both called {name:?}")]
    Duplicate {
        /// The name.
        name: String,
        /// One index.
        first: usize,
        /// The other.
        second: usize,
    },
    /// A node names too many or too few domains.
    #[error("node {node:?} names {found} domains, but there are {expected} levels between root and host")]
    PathLength {
        /// The node.
        node: String,
        /// Levels between root and host.
        expected: usize,
        /// Domains of the node.
        found: usize,
    },
    /// A node's network bandwidth is no sensible amount.
    #[error("network bandwidth of node {node:?} must be a finite number above zero")]
    Network {
        /// The node.
        node: String,
    },
    /// One name under two parents where names are unique.
    #[error(
        "{level} {name:?} lies both under {first:?} and under {second:?}: correct the labels, or allow the same \
         name in several places"
    )]
    Shared {
        /// The level.
        level: String,
        /// The name.
        name: String,
        /// The path of one parent.
        first: String,
        /// The path of the other.
        second: String,
    },
    /// More nodes than positions.
    #[error("{found} nodes are more than a topology holds")]
    TooManyNodes {
        /// How many there are.
        found: usize,
    },
}

/// Which domain a node belongs to at a level, in the order of the domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// The rank of its name among the level's.
    Named(u32),
    /// No name: kept together by the rank of a deeper domain's name.
    Below(u8, u32),
    /// No name here and none below: the node alone.
    Alone(u32),
}

impl Topology {
    /// The tree over these nodes.
    ///
    /// Domains and nodes are ordered by name (`rack-2` before `rack-10`), those without a name come last; the
    /// order of `nodes` does not matter. A domain is known by its name and its parent: the same name under two
    /// parents is two domains, or an error with [`SharedNames::Refused`].
    pub fn build(
        levels: Vec<Level>,
        nodes: &[NodeEntry<'_>],
        shared: SharedNames,
    ) -> Result<Self, BuildError> {
        check_levels(&levels)?;
        check_nodes(nodes, levels.len() - 2)?;
        let keys = keys(nodes, levels.len() - 2);
        let mut order: Vec<u32> = (0..nodes.len() as u32).collect();
        let width = levels.len() - 1;
        let key = |node: u32| &keys[node as usize * width..][..width];
        order.sort_unstable_by(|a, b| key(*a).cmp(key(*b)));

        let mut tree = lay_out(levels, nodes, &order, &key);
        tree.link(nodes);
        tree.irregularities = missing(&tree.levels, nodes);
        tree.find_shared(shared)?;
        Ok(tree)
    }

    /// Gives every domain its uplink, hosts first.
    fn link(&mut self, nodes: &[NodeEntry<'_>]) {
        let entry = |position: u32| &nodes[self.node_at[position as usize] as usize];
        let mut gpus = vec![0_u32; self.node_count() + 1];
        let mut network = vec![0.0; self.node_count() + 1];
        for position in 0..self.node_count() {
            gpus[position + 1] = gpus[position] + entry(position as u32).gpus;
            network[position + 1] = network[position] + entry(position as u32).network();
        }
        for level in self.level_indices().rev() {
            let rule = self.levels[level.index()].uplink;
            for domain in self.domains(level) {
                let (start, end) = self.spans[domain.index()];
                let (start, end) = (start as usize, end as usize);
                let below: f64 = self
                    .children(domain)
                    .map(|child| self.links[child.index()])
                    .filter(|link| link.fabric == Fabric::Network)
                    .map(|link| link.bandwidth)
                    .sum();
                let below = if below > 0.0 { below } else { network[end] - network[start] };
                let alone = end - start == 1 && level != self.host_level();
                let bandwidth = match rule.capacity {
                    Capacity::Oversubscribed(_) if alone => below,
                    Capacity::Oversubscribed(ratio) => below / ratio,
                    Capacity::Fixed(bandwidth) => bandwidth,
                    Capacity::PerGpu(bandwidth) => bandwidth * f64::from((gpus[end] - gpus[start]).max(1)),
                };
                let oversubscription =
                    if level == self.host_level() || below == 0.0 { 1.0 } else { below / bandwidth };
                self.links[domain.index()] = if level == LevelIndex::ROOT {
                    Link::NOWHERE
                } else {
                    Link { bandwidth, latency: rule.latency, oversubscription, fabric: rule.fabric }
                };
            }
        }
    }

    /// The same tree with uplinks scaled: `scale` gives a factor above zero for the domains that differ from their
    /// level's rule. Factors that are no such number are left out.
    #[must_use]
    pub fn with_scaled_uplinks(mut self, scale: impl Fn(&Self, DomainId) -> Option<f64>) -> Self {
        for index in 1..self.domain_count() {
            let factor =
                scale(&self, DomainId(index as u32)).filter(|factor| factor.is_finite() && *factor > 0.0);
            if let Some(factor) = factor {
                self.links[index].bandwidth *= factor;
                self.links[index].oversubscription /= factor;
            }
        }
        self
    }

    /// Names that stand at one level under several parents.
    fn find_shared(&mut self, shared: SharedNames) -> Result<(), BuildError> {
        let mut found = Vec::new();
        for level in self.level_indices().skip(1).take(self.levels.len().saturating_sub(2)) {
            let mut domains: Vec<_> = self.domains(level).collect();
            domains.sort_by_key(|domain| (self.name(*domain), *domain));
            let mut reported = None;
            for pair in domains.windows(2) {
                let [first, second] = [pair[0], pair[1]];
                let name = self.name(first);
                if name != self.name(second) || reported == Some(name) {
                    continue;
                }
                reported = Some(name);
                let [above, other] = [first, second]
                    .map(|domain| self.parent(domain).map(|parent| self.path(parent)).unwrap_or_default());
                let (level, name) = (self.levels[level.index()].name.clone(), name.to_owned());
                if shared == SharedNames::Refused {
                    return Err(BuildError::Shared { level, name, first: above, second: other });
                }
                found.push(Irregularity::Shared { level, name, parents: [above, other] });
            }
        }
        self.irregularities.extend(found);
        Ok(())
    }
}

fn check_levels(levels: &[Level]) -> Result<(), BuildError> {
    if !(2..=MAX_LEVELS).contains(&levels.len()) {
        return Err(BuildError::LevelCount { found: levels.len() });
    }
    for (index, level) in levels.iter().enumerate() {
        if level.name.is_empty() || levels[..index].iter().any(|other| other.name == level.name) {
            return Err(BuildError::LevelName { index, name: level.name.clone() });
        }
        if let Some(field) = level.uplink.fault() {
            return Err(BuildError::Uplink { level: level.name.clone(), field });
        }
    }
    Ok(())
}

fn check_nodes(nodes: &[NodeEntry<'_>], inner: usize) -> Result<(), BuildError> {
    // Every node may stand in a domain of its own on every level.
    if nodes.len() > u32::MAX as usize / (MAX_LEVELS + 1) {
        return Err(BuildError::TooManyNodes { found: nodes.len() });
    }
    for (index, node) in nodes.iter().enumerate() {
        if node.name.is_empty() {
            return Err(BuildError::Unnamed { index });
        }
        if node.path.len() != inner {
            let (expected, found) = (inner, node.path.len());
            return Err(BuildError::PathLength { node: node.name.to_owned(), expected, found });
        }
        if !(node.network().is_finite() && node.network() > 0.0) {
            return Err(BuildError::Network { node: node.name.to_owned() });
        }
    }
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_unstable_by_key(|index| (nodes[*index].name, *index));
    match order.windows(2).find(|pair| nodes[pair[0]].name == nodes[pair[1]].name) {
        Some(pair) => Err(BuildError::Duplicate {
            name: nodes[pair[0]].name.to_owned(),
            first: pair[0],
            second: pair[1],
        }),
        None => Ok(()),
    }
}

/// The domain a node names at a level, taking an empty name for none.
fn named<'a>(node: &NodeEntry<'a>, level: usize) -> Option<&'a str> {
    node.path[level].filter(|name| !name.is_empty())
}

/// Per node one key for every inner level and one for the host.
fn keys(nodes: &[NodeEntry<'_>], inner: usize) -> Vec<Key> {
    let ranks: Vec<Vec<Option<u32>>> =
        (0..inner).map(|level| ranks(nodes.iter().map(|node| named(node, level)).collect())).collect();
    let hosts = ranks_of_hosts(nodes);
    let mut keys = Vec::with_capacity(nodes.len() * (inner + 1));
    for (node, host) in hosts.into_iter().enumerate() {
        for level in 0..inner {
            let below = (level..inner).find_map(|at| Some((at, ranks[at][node]?)));
            keys.push(match below {
                Some((at, rank)) if at == level => Key::Named(rank),
                Some((at, rank)) => Key::Below(at as u8, rank),
                None => Key::Alone(host),
            });
        }
        keys.push(Key::Named(host));
    }
    keys
}

/// For every name its rank among the distinct names.
fn ranks(names: Vec<Option<&str>>) -> Vec<Option<u32>> {
    let mut order: Vec<(&str, usize)> =
        names.iter().enumerate().filter_map(|(index, name)| Some(((*name)?, index))).collect();
    order.sort_unstable();
    let mut distinct: Vec<&[(&str, usize)]> = order.chunk_by(|a, b| a.0 == b.0).collect();
    distinct.sort_by(|a, b| natural_order(a[0].0, b[0].0));
    let mut ranks = vec![None; names.len()];
    for (rank, alike) in distinct.into_iter().enumerate() {
        for (_, index) in alike {
            ranks[*index] = Some(rank as u32);
        }
    }
    ranks
}

/// The same for the nodes' own names, which are distinct.
fn ranks_of_hosts(nodes: &[NodeEntry<'_>]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by(|a, b| natural_order(nodes[*a].name, nodes[*b].name));
    let mut ranks = vec![0; nodes.len()];
    for (rank, index) in order.into_iter().enumerate() {
        ranks[index] = rank as u32;
    }
    ranks
}

/// Lays the domains over the nodes in their order; links and irregularities are still open.
fn lay_out<'k>(
    levels: Vec<Level>,
    nodes: &[NodeEntry<'_>],
    order: &[u32],
    key: &impl Fn(u32) -> &'k [Key],
) -> Topology {
    let count = order.len();
    let mut tree = Topology {
        starts: Vec::with_capacity(levels.len() + 1),
        parents: vec![0],
        first_child: Vec::new(),
        spans: vec![(0, count as u32)],
        names: vec![levels[0].name.as_str().into()],
        links: Vec::new(),
        at: vec![0; count * levels.len()],
        node_at: order.to_vec(),
        position_of: vec![0; count],
        by_name: (0..count as u32).collect(),
        irregularities: Vec::new(),
        levels,
    };
    tree.starts.push(0);
    for level in 1..tree.levels.len() {
        tree.starts.push(tree.parents.len() as u32);
        let mut previous: Option<&[Key]> = None;
        for (position, node) in order.iter().enumerate() {
            let prefix = &key(*node)[..level];
            if previous != Some(prefix) {
                let parent = tree.at[(level - 1) * count + position];
                tree.parents.push(parent);
                tree.spans.push((position as u32, position as u32));
                tree.names.push(domain_name(&tree.levels, &nodes[*node as usize], level));
                previous = Some(prefix);
            }
            let domain = tree.parents.len() - 1;
            tree.spans[domain].1 = position as u32 + 1;
            tree.at[level * count + position] = domain as u32;
        }
    }
    let domains = tree.parents.len() as u32;
    tree.starts.push(domains);
    tree.links = vec![Link::NOWHERE; domains as usize];
    tree.first_child = first_children(&tree);
    for (position, node) in order.iter().enumerate() {
        tree.position_of[*node as usize] = position as u32;
    }
    let mut by_name = std::mem::take(&mut tree.by_name);
    by_name.sort_unstable_by_key(|position| nodes[order[*position as usize] as usize].name);
    tree.by_name = by_name;
    tree
}

/// The first child of each domain: children follow one another in the order of their parents.
fn first_children(tree: &Topology) -> Vec<u32> {
    let domains = tree.parents.len() as u32;
    let mut first = vec![domains; domains as usize + 1];
    for child in (1..domains).rev() {
        first[tree.parents[child as usize] as usize] = child;
    }
    first
}

fn domain_name(levels: &[Level], node: &NodeEntry<'_>, level: usize) -> Box<str> {
    if level == levels.len() - 1 {
        return node.name.into();
    }
    if let Some(name) = named(node, level - 1) {
        return name.into();
    }
    let missing = &levels[level].name;
    let below = (level..node.path.len()).find_map(|at| Some((&levels[at + 1].name, named(node, at)?)));
    match below {
        Some((deeper, name)) => format!("{deeper} {name} (no {missing})").into(),
        None => format!("{} (no {missing})", node.name).into(),
    }
}

fn missing(levels: &[Level], nodes: &[NodeEntry<'_>]) -> Vec<Irregularity> {
    (1..levels.len() - 1)
        .filter_map(|level| {
            let mut without = nodes.iter().filter(|node| named(node, level - 1).is_none());
            let example = without.next()?.name.to_owned();
            Some(Irregularity::Missing {
                level: levels[level].name.clone(),
                nodes: without.count() + 1,
                example,
            })
        })
        .collect()
}
