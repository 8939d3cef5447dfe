//! What the planner wants done, and what it hears of it.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use muster_scheduler_api::{GangReservation, ReservedMember};
use muster_scheduler_core::{ClaimKey, Placement, PodKey};

use super::claims::ClaimUse;

/// What to do now, and when to ask again although nothing was seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decisions {
    /// To carry out.
    pub now: Vec<Decision>,
    /// Ask again after this long.
    pub again_in: Option<SignedDuration>,
    /// Steps that gangs have measured since the last decision.
    pub steps: Vec<Step>,
}

/// How long a step of a gang that runs takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The gang's queue.
    pub queue: String,
    /// Seconds, as the gang has measured them.
    pub observed: f64,
    /// Seconds of them that it is predicted to communicate; nothing where it is not known to.
    pub predicted: Option<f64>,
}

impl Decisions {
    pub(super) fn ask_again_in(&mut self, wait: SignedDuration) {
        self.again_in = Some(self.again_in.map_or(wait, |other| other.min(wait)));
    }
}

/// Something to carry out.
#[expect(clippy::large_enum_variant, reason = "a box a binding costs more than the move")]
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Bind these pods, after the plan has been written when there are several; then tell
    /// [`Planner::carried_out`](super::Planner::carried_out).
    Bind(Binding),
    /// Take away the written plan of a gang that is gone; then tell
    /// [`Planner::discarded`](super::Planner::discarded).
    Discard {
        /// Namespace.
        namespace: String,
        /// Name of the gang.
        gang: String,
        /// The plan.
        written: Written,
    },
    /// Tell a pod why it waits.
    Explain {
        /// The pod.
        pod: PodKey,
        /// Its uid: a successor of the same name is not meant.
        uid: String,
        /// One sentence.
        message: String,
        /// Whether the kind of reason is a new one, and not only its numbers.
        news: bool,
        /// How its gate opens, where it waits behind one.
        gate: Option<Opening>,
    },
    /// Give back what a claim has, if it is still as it was seen and none of these pods has a node: an attempt to bind
    /// them came to nothing.
    GiveBack {
        /// The claim.
        claim: ClaimKey,
        /// As it was seen.
        resource_version: String,
        /// The pods that use it.
        pods: Vec<PodKey>,
    },
    /// Evict these pods.
    Evict {
        /// The pods with their uids.
        pods: Vec<(PodKey, String)>,
        /// Why.
        why: Eviction,
        /// Whether they are another scheduler's.
        foreign: bool,
        /// One sentence.
        message: String,
    },
}

/// Why pods are evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// They are a whole gang, which makes room for another.
    Preempted,
    /// The scheduler that they name cannot bind them to the only node that is left to them.
    SteeredInVain,
}

/// A gang's plan as it stands in the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Counts the plans of the gang.
    pub epoch: i64,
    /// By which a later change of somebody else is noticed.
    pub resource_version: String,
}

impl Written {
    /// What is to be known of a plan.
    pub fn of(reservation: &GangReservation) -> Self {
        Self {
            epoch: reservation.spec.epoch,
            resource_version: reservation.metadata.resource_version.clone().unwrap_or_default(),
        }
    }
}

/// Pods of one gang with their places. Of one gang, one is carried out at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    /// Namespace.
    pub namespace: String,
    /// Name of the gang, or of the pod when it has none.
    pub gang: String,
    /// Its queue.
    pub queue: String,
    /// How long the gang stood in line, when it has started just now.
    pub waited: Option<SignedDuration>,
    /// Predicted seconds of a step that the gang communicates, when it has started just now and does.
    pub predicted: Option<f64>,
    /// Whether the plan must be written down first: it binds several pods, or is part of a gang.
    pub durable: bool,
    /// The written plan that this one replaces.
    pub replaces: Option<Written>,
    /// The controller that owns the pods, as owner of the written plan.
    pub owner: Option<OwnerReference>,
    /// Pods of the gang that have places already and keep them.
    pub settled: Vec<ReservedMember>,
    /// The places.
    pub placement: Placement,
    /// Pods of the placement that wait behind the gate of gangs.
    pub gates: BTreeMap<PodKey, Opening>,
    /// Claims that pods of the placement use: these get their devices before the pod is bound.
    pub claims: BTreeMap<PodKey, Vec<ClaimUse>>,
    /// Pods with fields that restrict where they may go, and that the plan did not look at.
    pub unheeded: BTreeMap<PodKey, Vec<&'static str>>,
}

impl Binding {
    /// Whether no pod of the gang has a place yet.
    pub(crate) fn nothing_settled(&self) -> bool {
        self.settled.iter().all(|member| PodKey::new(&self.namespace, &member.pod).is_spare())
    }
}

/// How a pod's gate is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// Towards its place; the scheduler that it names binds it there.
    Only,
    /// Towards its place, and it is bound.
    ThenBind,
}

/// What came of a binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Namespace.
    pub namespace: String,
    /// Name of the gang.
    pub gang: String,
    /// The plan that is written now.
    pub written: Option<Written>,
    /// Pods with their uids that certainly do not have their places.
    pub refused: Vec<(PodKey, String)>,
    /// Why the API server refused one of them, when it was the server that did.
    pub why: Option<String>,
    /// Claims that were written on, with their version since; none when that is not known.
    pub claims: BTreeMap<ClaimKey, Option<String>>,
}

impl Outcome {
    /// Nothing has come of the binding yet.
    pub(crate) fn nothing_of(binding: &Binding) -> Self {
        Self {
            namespace: binding.namespace.clone(),
            gang: binding.gang.clone(),
            written: binding.replaces.clone(),
            refused: Vec::new(),
            why: None,
            claims: BTreeMap::new(),
        }
    }

    /// No pod of the binding has its place.
    pub(crate) fn refuse_all(&mut self, binding: &Binding) {
        let places = binding.placement.0.iter();
        self.refused = places.map(|(pod, assignment)| (pod.clone(), assignment.uid.clone())).collect();
    }
}
