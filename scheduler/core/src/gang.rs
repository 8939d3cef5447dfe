//! What is to be placed: gangs of pods.

use std::collections::BTreeMap;
use std::fmt;

use muster_scheduler_topology::GroupShape;

use crate::claims::MemberClaim;
use crate::devices::{GpuDemand, WHOLE};
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

    /// The name under which a gang's spare place is held. No pod can be called so.
    pub fn spare(namespace: &str, gang: &str, index: usize) -> Self {
        Self::new(namespace, format!("{}{index}", spare_prefix(gang)))
    }

    /// Whether this is a spare place, which nobody runs in.
    pub fn is_spare(&self) -> bool {
        self.name.contains('/')
    }

    /// Whether this is a spare place of the gang.
    pub fn is_spare_of(&self, namespace: &str, gang: &str) -> bool {
        self.namespace == namespace && self.name.starts_with(&spare_prefix(gang))
    }
}

fn spare_prefix(gang: &str) -> String {
    format!("{gang}/spare-")
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
    /// Thousandths of one GPU that it shares with others; 0 when it shares none.
    pub gpu_share: u16,
    /// Labels that the node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Terms of which one must hold (required node affinity); empty means any node.
    pub required_affinity: Vec<Vec<Requirement>>,
    /// Taints that it stands.
    pub tolerations: Vec<Toleration>,
    /// Its place in the communication order.
    pub rank: u32,
    /// What it does in the gang, such as `worker`.
    pub role: String,
    /// Claims of devices that it brings along, as far as they have none yet.
    pub claims: Vec<MemberClaim>,
}

impl Member {
    /// What it wants of the GPUs of its node.
    pub fn gpu_demand(&self) -> GpuDemand {
        match (self.gpus, self.gpu_share) {
            (0, 0) => GpuDemand::None,
            (0, share) if share < WHOLE => GpuDemand::Share(share),
            (0, _) => GpuDemand::Whole(1),
            (count, _) => GpuDemand::Whole(count),
        }
    }

    /// The same with other GPUs.
    #[must_use]
    pub fn with_gpus(mut self, demand: GpuDemand) -> Self {
        (self.gpus, self.gpu_share) = match demand {
            GpuDemand::None => (0, 0),
            GpuDemand::Whole(count) => (count, 0),
            GpuDemand::Share(share) => (0, share),
        };
        self
    }
}

/// How near to each other the members of a gang must or should be. Levels are named by their node label, such
/// as `topology.kubernetes.io/zone`. Without any, the nearest place that has room is taken anyway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closeness {
    /// All members within one domain of this level, or the gang waits.
    pub required: Option<String>,
    /// All members within one domain of the first of these levels that has room for them, else anywhere.
    pub preferred: Vec<String>,
    /// Members evenly over the domains of this level, for resilience.
    pub spread: Option<String>,
    /// Ranks in slices of this many, each slice within one domain of the level: tensor-parallel groups.
    pub slice: Option<Slice>,
}

/// Consecutive ranks that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// How many ranks.
    pub size: u32,
    /// The level whose domains must not be left.
    pub level: String,
}

/// Pods that start together or not at all. A pod without a gang is a gang of one.
#[derive(Debug, Clone, Default, PartialEq)]
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
    /// How near to each other its members must or should be.
    pub closeness: Closeness,
    /// Places held beside the gang's own, for members whose node fails: each with room for its largest member, in
    /// the domain where the gang is, on nodes where none of it is. It starts when there is room for them, too.
    pub spares: u32,
    /// Bytes that its pods sum up in each step, where that is known.
    pub all_reduce: Option<u64>,
    /// How its ranks are grouped, where somebody says it.
    pub shape: Option<GroupShape>,
}

impl Gang {
    /// The member that a spare place has room for: the one with the most GPUs.
    pub fn largest(&self) -> Option<&Member> {
        self.waiting
            .iter()
            .max_by_key(|member| (member.gpu_demand().thousandths(), member.requests.get("cpu")))
    }

    /// How many of the gang's pods exist.
    pub fn present(&self) -> usize {
        self.waiting.len() + self.placed_on.len()
    }
}
