//! Which of several descriptions of where nodes are counts, and the tree that it gives over the nodes there are.
//!
//! What somebody wrote for Muster comes first, then what was written for other schedulers, then what the fabric or
//! the cloud says of itself:
//!
//! | order | source |
//! |---|---|
//! | 1 | a tree that was given, such as Slurm's `topology.conf` |
//! | 2 | labels `muster.dev/spine`, `muster.dev/block`, `muster.dev/rack` on any node |
//! | 3 | the first `Topology` of Kueue or KAI, by name, of whose labels any node has one |
//! | 4 | Volcano's `HyperNode`s |
//! | 5 | labels of the other families ([`super::labels`]) |

use serde_json::Value;

use super::field::FieldError;
use super::hypernode::{self, HyperNodeError};
use super::inside::Insides;
use super::labels::{self, Labels};
use super::{kueue, labels::HOSTNAME};
use crate::tree::{BuildError, DomainId, Level, NodeEntry, SharedNames, Topology};

/// Why a source gives no tree.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SourceError {
    /// A `Topology` object.
    #[error("Topology {name:?}: {fault}")]
    Topology {
        /// Its name.
        name: String,
        /// The fault.
        fault: FieldError,
    },
    /// A `HyperNode` object.
    #[error(transparent)]
    HyperNode(#[from] HyperNodeError),
    /// The nodes do not form a tree.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// A node as sources look at it.
#[derive(Debug, Clone, Copy)]
pub struct SourceNode<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a Labels,
    /// Its GPUs.
    pub gpus: u32,
}

/// What others wrote down about where nodes are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TopologySources {
    /// A tree that was given.
    pub tree: Option<Topology>,
    /// `Topology` objects of Kueue and KAI.
    pub topologies: Vec<Value>,
    /// Volcano's `HyperNode` objects.
    pub hyper_nodes: Vec<Value>,
    /// The inside of nodes.
    pub insides: Insides,
}

/// From where the tree over the nodes comes.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Source {
    /// Labels of the known families.
    #[default]
    Labels,
    /// These levels, by their labels.
    Levels(Vec<Level>),
    /// `HyperNode` objects.
    HyperNodes(Vec<Value>),
    /// A tree over nodes that may or may not exist.
    Tree(Box<Topology>),
}

impl Source {
    /// The source that counts for these nodes.
    ///
    /// # Errors
    /// [`SourceError::Topology`] when the object that counts cannot be read.
    pub fn choose(written: &TopologySources, nodes: &[SourceNode<'_>]) -> Result<Self, SourceError> {
        if let Some(tree) = &written.tree {
            return Ok(Self::Tree(Box::new(tree.clone())));
        }
        let has =
            |key: &str| nodes.iter().any(|node| node.labels.get(key).is_some_and(|value| !value.is_empty()));
        if labels::MUSTER.iter().any(|(_, keys)| keys.iter().any(|key| has(key))) {
            return Ok(Self::Labels);
        }
        let name_of = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let mut topologies: Vec<&Value> = written.topologies.iter().collect();
        topologies.sort_by_key(|object| name_of(object));
        for object in topologies {
            let levels = kueue::levels(object)
                .map_err(|fault| SourceError::Topology { name: name_of(object), fault })?;
            let mut keys = levels.iter().flat_map(|level| &level.keys).filter(|key| *key != HOSTNAME);
            if keys.any(|key| has(key)) {
                return Ok(Self::Levels(levels));
            }
        }
        if written.hyper_nodes.is_empty() {
            return Ok(Self::Labels);
        }
        Ok(Self::HyperNodes(written.hyper_nodes.clone()))
    }

    /// The tree over these nodes. Nodes that the source says nothing of stand alone.
    ///
    /// # Errors
    /// [`SourceError`] when what was written is not a tree.
    pub fn topology(&self, nodes: &[SourceNode<'_>]) -> Result<Topology, SourceError> {
        let labelled: Vec<(&str, &Labels)> = nodes.iter().map(|node| (node.name, node.labels)).collect();
        let from_levels = |levels: Vec<Level>| {
            let mut entries = labels::entries(&levels, &labelled);
            for (entry, node) in entries.iter_mut().zip(nodes) {
                entry.gpus = node.gpus;
            }
            Ok(Topology::build(levels, &entries, SharedNames::Distinct)?)
        };
        match self {
            Self::Labels => from_levels(labels::detect(nodes.iter().map(|node| node.labels))),
            Self::Levels(levels) => from_levels(levels.clone()),
            Self::HyperNodes(objects) => Ok(hypernode::topology(objects, &labelled)?.over(nodes)?),
            Self::Tree(tree) => Ok(tree.over(nodes)?),
        }
    }
}

impl Topology {
    /// The same tree over other nodes: those that it knows stay where they are, the others stand alone; uplinks
    /// keep their width against the others of their level.
    ///
    /// # Errors
    /// [`BuildError`] when two nodes have one name.
    pub fn over(&self, nodes: &[SourceNode<'_>]) -> Result<Self, BuildError> {
        let inner: Vec<_> =
            self.level_indices().skip(1).take(self.levels().len().saturating_sub(2)).collect();
        let mut entries = Vec::with_capacity(nodes.len());
        for node in nodes {
            let position = self.position_named(node.name);
            let path: Vec<Option<&str>> = inner
                .iter()
                .map(|level| position.map(|position| self.name(self.domain_at(*level, position))))
                .collect();
            entries.push(NodeEntry { gpus: node.gpus, ..NodeEntry::new(node.name, &path) });
        }
        let tree = Self::build(self.levels().to_vec(), &entries, SharedNames::Distinct)?;
        let per_node = |domain: DomainId| {
            self.uplink(domain).bandwidth / f64::from(self.positions(domain).len() as u32).max(1.0)
        };
        let widest: Vec<f64> =
            self.level_indices().map(|level| self.domains(level).map(per_node).fold(0.0, f64::max)).collect();
        Ok(tree.with_scaled_uplinks(|tree, domain| {
            let level = tree.level_of(domain);
            let known = tree
                .positions(domain)
                .find_map(|position| self.position_named(tree.node_name(crate::tree::Position(position))))?;
            let own = self.domain_at(level, known);
            // Hosts differ by their GPUs, which were not known before.
            let scaled = level.0 > 0 && level != self.host_level() && widest[level.index()].is_finite();
            scaled.then(|| per_node(own) / widest[level.index()])
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::import::slurm;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn node<'a>(name: &'a str, labels: &'a Labels) -> SourceNode<'a> {
        SourceNode { name, labels, gpus: 8 }
    }

    fn paths(topology: &Topology) -> Vec<String> {
        let level = topology.level_indices().rev().nth(1).unwrap();
        topology.domains(level).map(|domain| topology.path(domain)).collect()
    }

    fn written() -> TopologySources {
        TopologySources {
            tree: None,
            topologies: vec![
                json!({"metadata": {"name": "b"}, "spec": {"levels": [{"nodeLabel": "example.org/hall"}]}}),
                json!({"metadata": {"name": "a"}, "spec": {"levels": [{"nodeLabel": "example.org/nowhere"}]}}),
            ],
            hyper_nodes: vec![json!({"metadata": {"name": "leaf"}, "spec": {"tier": 1, "members": [
                {"type": "Node", "selector": {"exactMatch": {"name": "n0"}}},
                {"type": "Node", "selector": {"exactMatch": {"name": "n1"}}}]}})],
            insides: Insides::default(),
        }
    }

    #[test]
    fn what_was_written_for_muster_comes_first() {
        let plain = Labels::new();
        let hall = labels(&[("example.org/hall", "east"), ("topology.k8s.aws/network-node-layer-1", "x")]);
        let rack = labels(&[("example.org/hall", "east"), ("muster.dev/rack", "r1")]);
        let chosen = |labels: &Labels| {
            let nodes = [node("n0", labels), node("n1", &plain)];
            paths(&Source::choose(&written(), &nodes).unwrap().topology(&nodes).unwrap())
        };
        assert_eq!(chosen(&rack)[0], "r1");
        assert_eq!(chosen(&hall)[0], "east");
        assert_eq!(chosen(&plain), ["leaf"], "both nodes");
        let tree = slurm::topology("SwitchName=s0 Nodes=n[0-1]").unwrap();
        let given = TopologySources { tree: Some(tree), ..written() };
        let nodes = [node("n0", &rack)];
        let topology = Source::choose(&given, &nodes).unwrap().topology(&nodes).unwrap();
        assert_eq!(paths(&topology), ["s0"]);
    }

    #[test]
    fn a_tree_keeps_its_uplinks_over_the_nodes_that_exist() {
        let tree = slurm::topology(
            "SwitchName=s0 Nodes=a[1-4] LinkSpeed=100\nSwitchName=s1 Nodes=b[1-4] LinkSpeed=50\nSwitchName=top Switches=s[0-1]",
        )
        .unwrap();
        let none = Labels::new();
        let nodes =
            [node("a1", &none), node("a2", &none), node("b1", &none), node("b2", &none), node("c", &none)];
        let topology = tree.over(&nodes).unwrap();
        assert_eq!(topology.node_count(), 5);
        let leaf = |name: &str| {
            let position = topology.position_named(name).unwrap();
            topology.domain_at(crate::tree::LevelIndex(2), position)
        };
        let width = |name: &str| topology.uplink(leaf(name)).bandwidth;
        assert!((width("a1") / width("b1") - 2.0).abs() < 1e-9);
        assert_eq!(leaf("a1"), leaf("a2"));
        assert_ne!(leaf("c"), leaf("a1"));
        assert_eq!(topology.path(leaf("b2")), "top/s1");
    }

    #[test]
    fn an_object_that_cannot_be_read_is_named() {
        let none = Labels::new();
        let nodes = [node("n0", &none)];
        let broken = TopologySources {
            topologies: vec![json!({"metadata": {"name": "broken"}, "spec": {"levels": []}})],
            ..TopologySources::default()
        };
        let error = Source::choose(&broken, &nodes).unwrap_err().to_string();
        assert!(error.starts_with("Topology \"broken\": "), "{error}");
    }
}
