//! What the planner wants done.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use muster_scheduler_core::{Placement, PodKey};

/// What to do now, and when to ask again although nothing was seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decisions {
    /// To carry out.
    pub now: Vec<Decision>,
    /// Ask again after this long.
    pub again_in: Option<SignedDuration>,
}

impl Decisions {
    pub(super) fn ask_again_in(&mut self, wait: SignedDuration) {
        self.again_in = Some(self.again_in.map_or(wait, |other| other.min(wait)));
    }
}

/// Something to carry out.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Bind these pods, after the plan has been written when there are several.
    Bind(Binding),
    /// Tell a pod why it waits.
    Explain {
        /// The pod.
        pod: PodKey,
        /// Its uid: a successor of the same name is not meant.
        uid: String,
        /// One sentence.
        message: String,
    },
    /// Evict these pods, which are a whole gang.
    Evict {
        /// The pods with their uids.
        pods: Vec<(PodKey, String)>,
        /// One sentence: for whom.
        message: String,
    },
}

/// Pods of one gang with their places.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    /// Namespace.
    pub namespace: String,
    /// Name of the gang, or of the pod when it has none.
    pub gang: String,
    /// Whether the plan must be written down first: it binds several pods, or is part of a gang.
    pub durable: bool,
    /// The controller that owns the pods, as owner of the written plan.
    pub owner: Option<OwnerReference>,
    /// The places.
    pub placement: Placement,
}
