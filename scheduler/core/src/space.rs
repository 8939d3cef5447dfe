//! What is free where, dense and quick to copy: planning works on it for the present and for futures alike.

mod devices;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use muster_scheduler_topology::import::TopologySources;
use muster_scheduler_topology::{GpuSet, Load};

use crate::resources::GPU_RESOURCE;

use crate::amounts::Dimensions;
use crate::claims::Table;
use crate::counts::{ChangeLog, Counts};
use crate::devices::{DeviceIndices, Devices, GpuDemand};
use crate::gang::Member;
use crate::map::Map;
use crate::node::Node;
use crate::resources::Resources;
use crate::room::Room;
use crate::shape::{self, Shape};

/// Shapes whose counts are kept; clusters see few at a time.
const KEPT_SHAPES: usize = 128;

/// A node's number in its [`Space`]; stays the same as long as the node exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// For the node of this number.
    pub fn new(index: usize) -> Self {
        Self(index as u32)
    }

    /// The number.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug, Clone, Default)]
struct Nodes {
    by_id: Vec<Option<Arc<Node>>>,
    ids: BTreeMap<String, NodeId>,
    /// The same, for those who ask for thousands of names at a time.
    index: HashMap<String, NodeId>,
}

/// What is free on every node. A copy costs about a hundred bytes a node; [`Space::find`](crate::Space::find)
/// on the copy answers for a hypothetical future.
#[derive(Debug, Clone, Default)]
pub struct Space {
    nodes: Arc<Nodes>,
    rooms: Vec<Room>,
    dimensions: Arc<Dimensions>,
    /// Absent when nodes have come, gone or moved since.
    map: Option<Arc<Map>>,
    sources: Arc<TopologySources>,
    log: ChangeLog,
    shapes: BTreeMap<u64, Vec<Arc<Shape>>>,
    /// Most recently used last.
    counts: Vec<Arc<Counts>>,
    claimable: Arc<Table>,
    /// By the domains of the map.
    load: Option<Arc<Load>>,
}

impl Space {
    /// Adds an empty node or replaces what is known of it; its room is as if no pod were there.
    pub(crate) fn set_node(&mut self, node: Node) -> NodeId {
        Arc::make_mut(&mut self.dimensions).learn(&node.allocatable);
        let room = self.empty_room(&node);
        let nodes = Arc::make_mut(&mut self.nodes);
        let id = *nodes.ids.entry(node.name.clone()).or_insert_with(|| {
            let vacant = nodes.by_id.iter().position(Option::is_none);
            let id = NodeId::new(vacant.unwrap_or(nodes.by_id.len()));
            nodes.index.insert(node.name.clone(), id);
            id
        });
        if id.index() == nodes.by_id.len() {
            nodes.by_id.push(None);
            self.rooms.push(Room::default());
        }
        nodes.by_id[id.index()] = Some(Arc::new(node));
        self.rooms[id.index()] = room;
        self.map = None;
        id
    }

    pub(crate) fn remove_node(&mut self, name: &str) -> Option<NodeId> {
        let id = self.id(name)?;
        let nodes = Arc::make_mut(&mut self.nodes);
        nodes.ids.remove(name);
        nodes.index.remove(name);
        nodes.by_id[id.index()] = None;
        self.rooms[id.index()] = Room::default();
        self.map = None;
        Some(id)
    }

    pub(crate) fn set_topology_sources(&mut self, sources: TopologySources) {
        self.sources = Arc::new(sources);
        self.map = None;
    }

    /// What was written down about where nodes are, beside their labels.
    pub fn topology_sources(&self) -> &TopologySources {
        &self.sources
    }

    fn empty_room(&self, node: &Node) -> Room {
        let allocatable = node.allocatable.without(GPU_RESOURCE);
        Room {
            amounts: self.dimensions.amounts(&allocatable),
            devices: Devices::free(node.gpu_slots),
            stock: self.claimable.stock(node).map(Arc::new),
        }
    }

    /// The node of a name.
    pub fn id(&self, name: &str) -> Option<NodeId> {
        self.nodes.index.get(name).copied()
    }

    /// What is known of a node.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.by_id.get(id.index())?.as_ref()
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Arc<Node>)> {
        self.nodes.ids.values().filter_map(|id| Some((*id, self.node(*id)?)))
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.nodes.ids.len()
    }

    /// What is left on a node; nothing on one that is gone.
    pub fn room(&self, id: NodeId) -> &Room {
        &self.rooms[id.index()]
    }

    /// What is left on a node, GPUs aside, by resource name.
    pub fn resources_left(&self, id: NodeId) -> Resources {
        self.dimensions.resources(&self.rooms[id.index()].amounts)
    }

    /// The resources that amounts are counted in.
    pub fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    /// The shape of a member; members that ask for the same share one.
    pub fn shape(&mut self, member: &Member) -> Arc<Shape> {
        let fingerprint = shape::fingerprint(member);
        let requests = member.requests.without(GPU_RESOURCE);
        if !self.dimensions.know(&requests) {
            Arc::make_mut(&mut self.dimensions).learn(&requests);
        }
        let shape = Shape {
            amounts: self.dimensions.amounts(&requests),
            gpu: member.gpu_demand(),
            node_selector: member.node_selector.clone(),
            required_affinity: member.required_affinity.clone(),
            tolerations: member.tolerations.clone(),
            claims: member.claims.iter().map(|claim| Arc::clone(&claim.demand)).collect(),
        };
        let known = self.shapes.entry(fingerprint).or_default();
        if let Some(same) = known.iter().find(|known| ***known == shape) {
            return same.clone();
        }
        let shape = Arc::new(shape);
        known.push(shape.clone());
        if self.shapes.len() > 4 * KEPT_SHAPES {
            self.shapes.retain(|_, shapes| {
                shapes.retain(|shape| Arc::strong_count(shape) > 1);
                !shapes.is_empty()
            });
        }
        shape
    }

    /// A shape that takes resources and GPUs and could run anywhere: what pods that run already hold.
    pub(crate) fn held(&mut self, resources: &Resources, gpu: GpuDemand) -> Arc<Shape> {
        let member = Member { requests: resources.clone(), ..Member::default() }.with_gpus(gpu);
        self.shape(&member)
    }

    /// Takes the room of one pod on a node.
    pub fn take(&mut self, node: NodeId, shape: &Shape, devices: &[u8]) {
        self.rooms[node.index()].take(shape, devices);
        self.log.push(node, self.rooms.len());
    }

    /// Gives back the room of one pod; on a node that is gone there is nothing to give.
    pub fn give_back(&mut self, node: NodeId, shape: &Shape, devices: &[u8]) {
        if self.node(node).is_some() {
            self.rooms[node.index()].give_back(shape, devices);
            self.log.push(node, self.rooms.len());
        }
    }

    /// Lowers what is free on a node to what is free there at another time, so that what is found fits at both.
    pub fn lower(&mut self, node: NodeId, limit: &Room) {
        if self.rooms[node.index()] != *limit {
            self.rooms[node.index()].lower(limit);
            self.log.push(node, self.rooms.len());
        }
    }

    /// Devices for one more pod of `shape` on a node, when it fits.
    pub fn choose_devices(&self, node: NodeId, shape: &Shape) -> Option<DeviceIndices> {
        if shape.times_in(self.room(node)) == 0 {
            return None;
        }
        match self.share_out(node, shape, 1) {
            Some(shares) => shares.first().map(|share| share.iter().map(|gpu| gpu as u8).collect()),
            None => self.room(node).devices.choose(shape.gpu),
        }
    }

    /// Whole GPUs for several pods of a node by their links; `None` where these are not known, or all alike.
    pub(crate) fn share_out(&self, node: NodeId, shape: &Shape, pods: u32) -> Option<Arc<[GpuSet]>> {
        let GpuDemand::Whole(each) = shape.gpu else { return None };
        let map = self.map.as_ref()?;
        let devices = &self.room(node).devices;
        map.costs().share_out(map.position(node)?, devices.free_set()?, each, pods)
    }

    /// Where the nodes are, unless they have changed since it was asked last.
    pub(crate) fn known_map(&self) -> Option<&Arc<Map>> {
        self.map.as_ref()
    }

    /// The traffic of running gangs on the uplinks of the map; none where nobody talks.
    pub(crate) fn load(&self) -> Option<&Load> {
        self.load.as_deref()
    }

    pub(crate) fn set_load(&mut self, load: Option<Arc<Load>>) {
        self.load = load;
    }

    pub(crate) fn load_mut(&mut self) -> Option<&mut Load> {
        self.load.as_mut().map(Arc::make_mut)
    }

    /// Where the nodes are.
    pub fn map(&mut self) -> Arc<Map> {
        if let Some(map) = &self.map {
            return map.clone();
        }
        let map = Arc::new(Map::new(self.nodes(), &self.sources));
        self.counts.retain(|counts| counts.is_of(&map));
        self.map = Some(map.clone());
        map
    }

    /// How many pods of a shape fit where, on nodes with at most so many GPUs.
    pub(crate) fn counts(&mut self, shape: &Arc<Shape>, most_gpus: u32) -> Arc<Counts> {
        let map = self.map();
        let found = self.counts.iter().rposition(|counts| {
            counts.most_gpus == most_gpus && (Arc::ptr_eq(&counts.shape, shape) || counts.shape == *shape)
        });
        let counts = if let Some(index) = found {
            let mut counts = self.counts.remove(index);
            if !counts.is_current(&self.log) {
                Arc::make_mut(&mut counts).catch_up(&self.log, &self.rooms);
            }
            counts
        } else {
            let node = |id: NodeId| self.node(id).cloned();
            Arc::new(Counts::new(shape.clone(), most_gpus, &map, &self.log, node, &self.rooms))
        };
        if self.counts.len() >= KEPT_SHAPES {
            self.counts.remove(0);
        }
        self.counts.push(counts.clone());
        counts
    }

    /// Counts for pods like this one what copies would count anew each time.
    pub fn get_ready_for(&mut self, member: &Member) {
        let shape = self.shape(member);
        self.fits(&shape);
    }

    /// How many pods of a shape fit in the whole cluster, one after the other.
    pub fn fits(&mut self, shape: &Arc<Shape>) -> u32 {
        if self.node_count() == 0 { 0 } else { self.counts(shape, u32::MAX).of(Map::ROOT) }
    }
}
