//! What a claim asks for, resolved to the devices that it may have.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::device::{AttributeValues, DeviceNumber, DeviceSet};

/// A claim that a pod brings along and that has no devices yet.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberClaim {
    /// Name of the claim within the pod's namespace.
    pub name: String,
    /// What it asks for.
    pub demand: Arc<ClaimDemand>,
    /// Whether every node reaches whatever it gets, so that pods that share it may be on different nodes.
    pub anywhere: bool,
}

/// What a claim asks for. Claims that ask for the same are equal, whatever they are called.
#[derive(Debug, PartialEq, Eq)]
pub struct ClaimDemand {
    fingerprint: u64,
    requests: Vec<ClaimRequest>,
    constraints: Vec<Constraint>,
}

/// One request of a claim: the first of its alternatives for which there are devices.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClaimRequest {
    /// Alternatives in the order of preference; a request for exactly something has one.
    pub alternatives: Vec<Alternative>,
}

/// Devices of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Alternative {
    /// The request, and below `/` the alternative where there are several.
    pub name: String,
    /// Devices that it may have.
    pub devices: DeviceSet,
    /// Devices that are meant, too, but that it must not have, as they are tainted.
    pub barred: DeviceSet,
    /// How many of them.
    pub amount: Amount,
    /// Whether it looks at devices that are others' and takes none.
    pub admin: bool,
}

/// How many devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Amount {
    /// So many.
    Exactly(u32),
    /// All that the node reaches, at least one.
    All,
}

/// All devices of some requests have the same value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Constraint {
    /// Names of requests or of alternatives ([`Alternative::name`]) that it binds; empty binds all.
    pub requests: Vec<String>,
    /// The attribute's values; devices that have none meet no constraint.
    pub values: AttributeValues,
}

impl ClaimDemand {
    /// A claim with these requests and constraints.
    pub fn new(requests: Vec<ClaimRequest>, constraints: Vec<Constraint>) -> Self {
        let mut hasher = DefaultHasher::new();
        (&requests, &constraints).hash(&mut hasher);
        Self { fingerprint: hasher.finish(), requests, constraints }
    }

    /// Its requests.
    pub fn requests(&self) -> &[ClaimRequest] {
        &self.requests
    }

    /// Among how many devices its most particular request can choose.
    pub(crate) fn choice(&self) -> usize {
        let of_request = |request: &ClaimRequest| {
            request.alternatives.iter().map(|alternative| alternative.devices.iter().count()).sum()
        };
        self.requests.iter().map(of_request).min().unwrap_or(0)
    }

    /// What binds its requests together.
    pub fn constraints(&self) -> &[Constraint] {
        &self.constraints
    }
}

impl Hash for ClaimDemand {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint.hash(state);
    }
}

impl Constraint {
    /// Whether it binds the devices of an alternative.
    pub(crate) fn binds(&self, alternative: &str) -> bool {
        let request = alternative.split('/').next().unwrap_or(alternative);
        self.requests.is_empty() || self.requests.iter().any(|name| name == alternative || name == request)
    }

    pub(crate) fn value(&self, device: DeviceNumber) -> Option<u32> {
        self.values.get(&device).copied()
    }
}
