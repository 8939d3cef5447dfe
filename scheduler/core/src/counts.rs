//! How many pods of a shape fit on each node and in each domain, kept up to date change by change.

use std::sync::Arc;

use crate::map::{Domain, Map};
use crate::node::Node;
use crate::room::Room;
use crate::shape::Shape;
use crate::space::NodeId;

/// No node is counted for more than this, so that sums over a cluster stay exact.
const MOST: u32 = 4096;

/// Nodes whose room changed, in order; every [`Counts`] remembers how far it has read.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChangeLog {
    start: u64,
    changed: Vec<NodeId>,
}

impl ChangeLog {
    pub(crate) fn push(&mut self, node: NodeId, nodes: usize) {
        if self.changed.len() >= 4096.max(2 * nodes) {
            self.start += self.changed.len() as u64;
            self.changed.clear();
        }
        self.changed.push(node);
    }

    pub(crate) fn end(&self) -> u64 {
        self.start + self.changed.len() as u64
    }

    /// The nodes changed since `seen`; `None` when that is too long ago.
    fn since(&self, seen: u64) -> Option<&[NodeId]> {
        self.changed.get(usize::try_from(seen.checked_sub(self.start)?).ok()?..)
    }
}

/// How many pods of one shape fit where.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    pub(crate) shape: Arc<Shape>,
    /// Nodes with more GPUs do not count.
    pub(crate) most_gpus: u32,
    /// The map that positions and domains refer to.
    map: Arc<Map>,
    /// Whether the node may take the shape at all, by position.
    eligible: Arc<[bool]>,
    /// By domain, hosts included.
    sums: Vec<u32>,
    seen: u64,
}

impl Counts {
    /// Counts everything anew.
    pub(crate) fn new(
        shape: Arc<Shape>,
        most_gpus: u32,
        map: &Arc<Map>,
        log: &ChangeLog,
        node: impl Fn(NodeId) -> Option<Arc<Node>>,
        rooms: &[Room],
    ) -> Self {
        let fit =
            |node: Arc<Node>| node.gpu_slots <= most_gpus && node.unfit_for(shape.selection()).is_none();
        let may_take = |id: NodeId| node(id).is_some_and(fit);
        let eligible: Arc<[bool]> = map.nodes().map(may_take).collect();
        let mut counts =
            Self { shape, most_gpus, map: map.clone(), eligible, sums: Vec::new(), seen: log.end() };
        counts.count_all(rooms);
        counts
    }

    fn count_all(&mut self, rooms: &[Room]) {
        self.sums.clear();
        self.sums.resize(self.map.domains(), 0);
        for (position, id) in self.map.nodes().enumerate() {
            self.sums[self.map.host(position)] = self.times(position, &rooms[id.index()]);
        }
        // Children have higher indices than their parents.
        for domain in (1..self.map.domains()).rev() {
            if let Some(parent) = self.map.parent(domain) {
                self.sums[parent] += self.sums[domain];
            }
        }
    }

    fn times(&self, position: usize, room: &Room) -> u32 {
        if self.eligible[position] { self.shape.times_in(room).min(MOST) } else { 0 }
    }

    pub(crate) fn is_of(&self, map: &Arc<Map>) -> bool {
        Arc::ptr_eq(&self.map, map)
    }

    /// Reads what has changed since the last look.
    pub(crate) fn catch_up(&mut self, log: &ChangeLog, rooms: &[Room]) {
        let Some(changed) = log.since(self.seen) else {
            self.seen = log.end();
            self.count_all(rooms);
            return;
        };
        for id in changed {
            let Some(position) = self.map.position(*id) else { continue };
            let host = self.map.host(position);
            let (before, now) = (self.sums[host], self.times(position, &rooms[id.index()]));
            if before == now {
                continue;
            }
            let mut domain = Some(host);
            while let Some(at) = domain {
                self.sums[at] = self.sums[at] - before + now;
                domain = self.map.parent(at);
            }
        }
        self.seen = log.end();
    }

    pub(crate) fn is_current(&self, log: &ChangeLog) -> bool {
        self.seen == log.end()
    }

    /// How many pods fit into a domain.
    pub(crate) fn of(&self, domain: Domain) -> u32 {
        self.sums[domain]
    }

    /// How many pods fit into the domain around a host: full domains are filled up first.
    pub(crate) fn around(&self, host: Domain) -> u32 {
        self.map.parent(host).map_or(0, |parent| self.sums[parent])
    }
}
