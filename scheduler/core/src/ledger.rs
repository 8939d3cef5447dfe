//! The ledger: what every node has, and who took what. The one truth of all front ends.

use std::collections::{BTreeMap, BTreeSet};

use crate::explain::Waiting;
use crate::gang::{Gang, Member, PodKey};
use crate::node::Node;
use crate::placement;
use crate::resources::Resources;

/// What one pod took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Uid of the pod.
    pub uid: String,
    /// The node.
    pub node: String,
    /// What it took there.
    pub resources: Resources,
    /// Which GPU slots.
    pub gpu_indices: Vec<u32>,
}

/// Places for all pods of a gang that need one, in the order of [`Gang::waiting`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement(pub Vec<(PodKey, Assignment)>);

/// Why a placement could not be taken: the ledger changed since it was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TakeError {
    /// The node is gone.
    #[error("node {0} is gone")]
    NodeGone(String),
    /// Another pod took the room.
    #[error("node {node} has too little {resource} left for {pod}")]
    TooLittle {
        /// The node.
        node: String,
        /// The resource.
        resource: String,
        /// The pod.
        pod: PodKey,
    },
    /// Another pod has the GPU slot.
    #[error("GPU slot {slot} of node {node} is taken")]
    SlotTaken {
        /// The node.
        node: String,
        /// The slot.
        slot: u32,
    },
}

/// Nodes and what is taken on them.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    nodes: BTreeMap<String, Node>,
    assignments: BTreeMap<PodKey, Assignment>,
}

impl Ledger {
    /// Adds a node or replaces what is known of it.
    pub fn set_node(&mut self, node: Node) {
        self.nodes.insert(node.name.clone(), node);
    }

    /// Forgets a node; pods on it keep their entries until they are released.
    pub fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// The nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// A node.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// What a pod took.
    pub fn assignment(&self, pod: &PodKey) -> Option<&Assignment> {
        self.assignments.get(pod)
    }

    /// Records what a pod has on its node in truth, whatever the ledger thought.
    pub fn record(&mut self, pod: PodKey, assignment: Assignment) {
        self.assignments.insert(pod, assignment);
    }

    /// Gives back what a pod took; whether it had anything.
    pub fn release(&mut self, pod: &PodKey) -> bool {
        self.assignments.remove(pod).is_some()
    }

    /// What is left on each node.
    pub fn free(&self) -> BTreeMap<&str, Free> {
        let mut free: BTreeMap<&str, Free> = self
            .nodes
            .values()
            .map(|node| {
                let slots = (0..node.gpu_slots).collect();
                (node.name.as_str(), Free { resources: node.allocatable.clone(), gpu_slots: slots })
            })
            .collect();
        for assignment in self.assignments.values() {
            if let Some(left) = free.get_mut(assignment.node.as_str()) {
                left.take(&assignment.resources, &assignment.gpu_indices);
            }
        }
        free
    }

    /// Finds places for all waiting pods of the gang, or says why there are none. Changes nothing.
    ///
    /// # Errors
    /// [`Waiting`] when the gang cannot start now.
    pub fn place(&self, gang: &Gang) -> Result<Placement, Waiting> {
        placement::place(self, gang)
    }

    /// Takes all places of a placement, or none.
    ///
    /// # Errors
    /// When the ledger has changed so that one of them is no longer free.
    pub fn take(&mut self, placement: &Placement) -> Result<(), TakeError> {
        let mut free = self.free();
        for (pod, assignment) in &placement.0 {
            let node = &assignment.node;
            let left = free.get_mut(node.as_str()).ok_or_else(|| TakeError::NodeGone(node.clone()))?;
            if let Some(resource) = assignment.resources.lacking(&left.resources) {
                let resource = resource.to_owned();
                return Err(TakeError::TooLittle { node: node.clone(), resource, pod: pod.clone() });
            }
            if let Some(slot) = assignment.gpu_indices.iter().find(|slot| !left.gpu_slots.contains(slot)) {
                return Err(TakeError::SlotTaken { node: node.clone(), slot: *slot });
            }
            left.take(&assignment.resources, &assignment.gpu_indices);
        }
        for (pod, assignment) in &placement.0 {
            self.assignments.insert(pod.clone(), assignment.clone());
        }
        Ok(())
    }
}

/// What is left on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Free {
    /// Amounts.
    pub resources: Resources,
    /// GPU slots nobody has.
    pub gpu_slots: BTreeSet<u32>,
}

impl Free {
    /// Whether a pod fits.
    pub fn holds(&self, member: &Member) -> bool {
        member.requests.fits_in(&self.resources) && self.gpu_slots.len() >= member.gpus as usize
    }

    /// Takes resources and slots.
    pub(crate) fn take(&mut self, resources: &Resources, gpu_indices: &[u32]) {
        self.resources.subtract(resources);
        for slot in gpu_indices {
            self.gpu_slots.remove(slot);
        }
    }
}
