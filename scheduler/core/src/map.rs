//! Where the nodes of a [`Space`](crate::Space) are: its topology, with nodes by their number.

use std::ops::Range;
use std::sync::Arc;

use muster_scheduler_topology::import::{Source, SourceError, SourceNode, TopologySources};
use muster_scheduler_topology::{DomainId, LevelIndex, NodeInterior, Position, Topology};

use crate::cost::Costs;
use crate::inside::Interiors;
use crate::node::Node;
use crate::space::NodeId;

/// A domain's number in its map: parents come before their children, the whole cluster is 0.
pub type Domain = usize;

/// The topology over a space's nodes.
#[derive(Debug, Clone)]
pub struct Map {
    topology: Topology,
    /// By position.
    nodes: Vec<NodeId>,
    /// By node, where it exists.
    positions: Vec<Option<u32>>,
    /// By domain.
    parents: Vec<Option<u32>>,
    costs: Costs,
    fault: Option<SourceError>,
    inside_faults: Vec<String>,
}

impl Map {
    /// The whole cluster.
    pub const ROOT: Domain = 0;

    pub(crate) fn new<'a>(
        nodes: impl Iterator<Item = (NodeId, &'a Arc<Node>)>,
        sources: &TopologySources,
    ) -> Self {
        let nodes: Vec<(NodeId, &Arc<Node>)> = nodes.collect();
        let described: Vec<SourceNode<'_>> = nodes
            .iter()
            .map(|(_, node)| SourceNode { name: &node.name, labels: &node.labels, gpus: node.gpu_slots })
            .collect();
        let chosen = Source::choose(sources, &described).and_then(|source| source.topology(&described));
        #[expect(
            clippy::expect_used,
            reason = "levels are few, named and valid, and a space's nodes have unique names"
        )]
        let from_labels = || Source::Labels.topology(&described).expect("a tree over named nodes");
        let (topology, fault) = match chosen {
            Ok(topology) => (topology, None),
            Err(fault) => (from_labels(), Some(fault)),
        };
        let node_at = |position| &**nodes[topology.node_at(position)].1;
        let mut interiors = Interiors::new(&topology, node_at, &sources.insides);
        let inside_faults = std::mem::take(&mut interiors.faults);
        let costs = Costs::new(&topology, node_at, interiors);
        let ids: Vec<NodeId> = nodes.iter().map(|(id, _)| *id).collect();
        Self { fault, inside_faults, ..Self::over(topology, &ids, costs) }
    }

    fn over(topology: Topology, ids: &[NodeId], costs: Costs) -> Self {
        let nodes: Vec<NodeId> =
            (0..ids.len()).map(|position| ids[topology.node_at(Position(position as u32))]).collect();
        let last = ids.iter().map(|id| id.index()).max().map_or(0, |last| last + 1);
        let mut positions = vec![None; last];
        for (position, id) in nodes.iter().enumerate() {
            positions[id.index()] = Some(position as u32);
        }
        let domains = (0..topology.domain_count() as u32).map(DomainId);
        let parents = domains.map(|domain| topology.parent(domain).map(|parent| parent.0)).collect();
        Self { topology, nodes, positions, parents, costs, fault: None, inside_faults: Vec::new() }
    }

    /// Why the tree is not the one that was written down, but the one that the nodes' labels give.
    pub fn fault(&self) -> Option<&SourceError> {
        self.fault.as_ref()
    }

    /// What was written down of the inside of nodes and is not followed, a sentence each.
    pub fn inside_faults(&self) -> &[String] {
        &self.inside_faults
    }

    /// The links between the GPUs of the node at a position, where somebody wrote them down.
    pub fn inside(&self, position: usize) -> Option<&NodeInterior> {
        self.costs.written(position).then(|| self.costs.interior(position))
    }

    pub(crate) fn costs(&self) -> &Costs {
        &self.costs
    }

    /// The tree itself.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The nodes by position.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = NodeId> {
        self.nodes.iter().copied()
    }

    /// The node at a position.
    pub fn node_at(&self, position: usize) -> NodeId {
        self.nodes[position]
    }

    /// Where a node is.
    pub fn position(&self, node: NodeId) -> Option<usize> {
        (*self.positions.get(node.index())?).map(|position| position as usize)
    }

    /// How many domains there are.
    pub fn domains(&self) -> usize {
        self.parents.len()
    }

    /// The domain above.
    pub fn parent(&self, domain: Domain) -> Option<Domain> {
        self.parents[domain].map(|parent| parent as usize)
    }

    /// The host of a position.
    pub fn host(&self, position: usize) -> Domain {
        self.topology.host(Position(position as u32)).index()
    }

    /// The node of a host.
    pub fn host_node(&self, host: Domain) -> NodeId {
        self.node_at(self.positions(host).start)
    }

    /// Whether the GPUs of a host are linked faster than by PCIe.
    pub fn is_linked(&self, host: Domain) -> bool {
        self.costs.interior(self.positions(host).start).accelerator().nvlink_total() > 0.0
    }

    /// The positions of a domain's nodes.
    pub fn positions(&self, domain: Domain) -> Range<usize> {
        let span = self.topology.positions(DomainId(domain as u32));
        span.start as usize..span.end as usize
    }

    /// The domains directly below.
    pub fn children(&self, domain: Domain) -> Range<Domain> {
        self.topology.children(DomainId(domain as u32)).indices()
    }

    /// The domains of a level, the root's is 0.
    pub fn level(&self, level: usize) -> Range<Domain> {
        self.topology.domains(LevelIndex(level as u8)).indices()
    }

    /// The level of a domain.
    pub fn level_of(&self, domain: Domain) -> usize {
        self.topology.level_of(DomainId(domain as u32)).index()
    }

    /// The deepest level.
    pub fn hosts_level(&self) -> usize {
        self.topology.host_level().index()
    }

    /// The level of a name or of a label.
    pub fn level_named(&self, name: &str) -> Option<usize> {
        self.topology.level_named(name).map(LevelIndex::index)
    }

    /// The levels from the largest domains to the smallest.
    pub fn level_names(&self) -> Vec<&str> {
        self.topology.levels().iter().map(|level| level.name.as_str()).collect()
    }
}
