//! What is to be placed: gangs of pods.

use std::collections::BTreeMap;
use std::fmt;

use crate::node::{Requirement, Toleration};
use crate::resources::Resources;

/// A pod by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl PodKey {
    /// A pod's key.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// A pod that waits for a place.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Member {
    /// Name within the gang's namespace.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// What it needs, one pod slot included.
    pub requests: Resources,
    /// Whole GPUs among `requests`.
    pub gpus: u32,
    /// Labels that the node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Terms of which one must hold (required node affinity); empty means any node.
    pub required_affinity: Vec<Vec<Requirement>>,
    /// Taints that it stands.
    pub tolerations: Vec<Toleration>,
    /// Its place in the communication order.
    pub rank: u32,
}

/// Pods that start together or not at all. A pod without a gang is a gang of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Gang {
    /// Namespace.
    pub namespace: String,
    /// Name, unique in the namespace.
    pub name: String,
    /// How many pods must have a place before any is bound, those already bound included.
    pub min_available: usize,
    /// Pods that wait for a place, in rank order.
    pub waiting: Vec<Member>,
    /// Nodes of members that already have a place.
    pub placed_on: Vec<String>,
}

impl Gang {
    /// How many of the gang's pods exist.
    pub fn present(&self) -> usize {
        self.waiting.len() + self.placed_on.len()
    }
}
