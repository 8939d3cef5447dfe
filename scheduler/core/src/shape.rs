//! What decides where a pod fits and how often: pods of one shape are interchangeable for planning.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::amounts::Amounts;
use crate::claims::ClaimDemand;
use crate::devices::GpuDemand;
use crate::gang::Member;
use crate::node::{Requirement, Selection, Toleration};
use crate::room::Room;

/// Requests and constraints of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    /// What it takes besides GPUs.
    pub amounts: Amounts,
    /// What it takes of the GPUs.
    pub gpu: GpuDemand,
    /// Labels that the node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Terms of which one must hold; empty means any node.
    pub required_affinity: Vec<Vec<Requirement>>,
    /// Taints that it stands.
    pub tolerations: Vec<Toleration>,
    /// What its claims ask for, claim by claim.
    pub claims: Vec<Arc<ClaimDemand>>,
}

impl Shape {
    /// How many pods of this shape the room holds.
    pub fn times_in(&self, room: &Room) -> u32 {
        let most = self.amounts.times_in(&room.amounts).min(room.devices.times(self.gpu));
        if self.claims.is_empty() || most == 0 { most } else { room.times_claimed(&self.claims, most) }
    }

    /// What it asks of a node whatever is free there.
    pub fn selection(&self) -> Selection<'_> {
        Selection {
            node_selector: &self.node_selector,
            required_affinity: &self.required_affinity,
            tolerations: &self.tolerations,
        }
    }
}

/// A number that is the same for members of one shape.
pub(crate) fn fingerprint(member: &Member) -> u64 {
    let mut hasher = DefaultHasher::new();
    member.requests.hash(&mut hasher);
    (member.gpu_demand(), &member.node_selector, &member.required_affinity).hash(&mut hasher);
    member.tolerations.hash(&mut hasher);
    member.claims.iter().for_each(|claim| claim.demand.hash(&mut hasher));
    hasher.finish()
}
