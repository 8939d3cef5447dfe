//! What goes into the state machine and what comes out.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use muster_scheduler_core::{Assignment, Gang, Member, Placement, PodKey};
use serde::Serialize;

use crate::plans::{Planner, Refusal};

/// Milliseconds since an epoch of the caller's choosing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Time(pub i64);

impl Time {
    /// This long after.
    #[must_use]
    pub fn plus(self, milliseconds: i64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }
}

/// A gang by namespace and name. A pod without a gang is a gang of one whose name no gang can have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct GangKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl GangKey {
    /// A gang's key.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for GangKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// How long things may take, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A reservation of which nothing was bound for this long is released whole.
    pub expiry: i64,
    /// The slot of a deleted pod is kept this long for its successor.
    pub vacancy: i64,
    /// A binding whose outcome was lost is asked for again after this long.
    pub unsure: i64,
    /// After a start, requests of the run before may land for this long; nothing new is committed meanwhile.
    /// Must be shorter than the expiry.
    pub settle: i64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { expiry: 60_000, vacancy: 30_000, unsure: 5_000, settle: 2_000 }
    }
}

/// What a pod is to the extender.
#[derive(Debug, Clone, PartialEq)]
pub struct PodSeen {
    /// Namespace and name.
    pub key: PodKey,
    /// What it needs; its name and uid.
    pub member: Member,
    /// The gang without its pods, or nothing for a pod on its own.
    pub gang: Option<Arc<Gang>>,
    /// Uid of the controller that it is from, where its gang does without those of its pods that have ended well.
    pub owner: Option<String>,
    /// Priority.
    pub priority: i32,
    /// When it was created.
    pub created: Time,
    /// Whether this is a pod to plan; others pass through as they are.
    pub planned: bool,
    /// Whether this process binds it by itself; otherwise kube-scheduler asks for it.
    pub own: bool,
    /// Why its gang must wait for somebody to change it, such as a wish that cannot be read.
    pub held: Option<String>,
    /// How far it has come.
    pub state: PodState,
}

/// How far a pod has come.
#[derive(Debug, Clone, PartialEq)]
pub enum PodState {
    /// It needs a node.
    Waiting,
    /// It has one.
    Bound(Assignment),
    /// It will not run any more; whether a successor is to be expected (it failed or was evicted).
    Ended {
        /// A successor is to be expected.
        succeeded_by_another: bool,
    },
}

/// The place of one pod in a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservedPlace {
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod.
    pub uid: String,
    /// The node.
    pub node: String,
    /// GPU slots of the node.
    pub gpu_indices: Vec<u32>,
}

/// A reservation as the API server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenReservation {
    /// The gang.
    pub gang: GangKey,
    /// Counts the plans of the gang.
    pub epoch: i64,
    /// The places, in order of the pods' names.
    pub members: Vec<ReservedPlace>,
    /// Version of the object.
    pub resource_version: String,
}

/// A reservation to write, whole, if the object still is what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteReservation {
    /// The gang.
    pub gang: GangKey,
    /// Counts the plans of the gang.
    pub epoch: i64,
    /// The places, in order of the pods' names.
    pub members: Vec<ReservedPlace>,
    /// The version to replace; none means that there must be no such object yet.
    pub replaces: Option<String>,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It is durable, as this version.
    Written(String),
    /// The object is another; what it is now, or none when it is gone.
    Conflict(Option<SeenReservation>),
    /// It was refused.
    Failed(String),
    /// The answer was lost: it may have been written.
    Unknown(String),
}

/// A pod to bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindPod {
    /// The pod.
    pub pod: PodKey,
    /// Its uid, as a precondition.
    pub uid: String,
    /// The node.
    pub node: String,
    /// GPU slots of the node, for the annotation.
    pub gpu_indices: Vec<u32>,
    /// Which try this is.
    pub attempt: u64,
}

/// What became of a binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindOutcome {
    /// The pod has the node.
    Bound,
    /// The pod had a node already: this one.
    AlreadyBound(String),
    /// There is no such pod any more.
    Gone,
    /// The pod has no node; an answer to [`Effect::Look`] only.
    NotBound,
    /// It was refused.
    Failed(String),
    /// The answer was lost: it may be bound.
    Unknown(String),
}

/// Something to carry out; the outcome comes back by the method named.
#[derive(Debug)]
pub enum Effect<S> {
    /// Plan a gang: [`PlanJob::run`], then `ExtenderCore::planned`.
    Plan(PlanJob<S>),
    /// Write a reservation, then `ExtenderCore::written`.
    Write(WriteReservation),
    /// Note in the reservation's status that all of it is bound. Nothing depends on it.
    MarkBound {
        /// The gang.
        gang: GangKey,
        /// Of which plan.
        epoch: i64,
    },
    /// Remove the reservation of a gang that has no pods any more. Nothing depends on it.
    Remove {
        /// The gang.
        gang: GangKey,
        /// The version that may be removed.
        resource_version: String,
    },
    /// Bind a pod, then `ExtenderCore::bound`.
    Bind(BindPod),
    /// Read whether a pod has a node, without binding it, then `ExtenderCore::bound`.
    Look(BindPod),
}

/// A gang to plan on a copy of the ledger, wherever there is time for it.
#[derive(Debug)]
pub struct PlanJob<S> {
    pub(crate) id: u64,
    pub(crate) snapshot: S,
    pub(crate) gang: Gang,
    pub(crate) offered: Option<BTreeSet<String>>,
}

/// A planned gang.
#[derive(Debug)]
pub struct Planned {
    pub(crate) id: u64,
    pub(crate) outcome: Result<Placement, Refusal>,
}

impl<S: Planner> PlanJob<S> {
    /// How many pods are to be placed: a measure of how long it takes.
    pub fn pods(&self) -> usize {
        self.gang.waiting.len()
    }

    /// Plans.
    pub fn run(mut self) -> Planned {
        if let Some(offered) = &self.offered {
            self.snapshot.restrict(offered);
        }
        Planned { id: self.id, outcome: self.snapshot.place(&self.gang) }
    }
}

/// The answer to a filter call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A pod that is not ours: whatever was offered.
    Any,
    /// This node.
    Node(String),
    /// None, for now.
    Refused(Refusal),
    /// None, and the pod is to be tried again soon.
    Error(String),
}

/// How a filter call goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterStep {
    /// Answer this.
    Answer(Verdict),
    /// Ask again after the next change, or answer so when there is no time left.
    Wait(&'static str),
    /// The picture of the cluster is not complete yet.
    NotSynced,
}

/// How a bind call goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindStep {
    /// Answer this.
    Answer(Result<(), String>),
    /// Ask again, with this attempt, after the next change.
    Wait(u64),
    /// The pod is not known (yet); ask again after the next change.
    Unseen,
    /// The picture of the cluster is not complete yet.
    NotSynced,
}

/// How far a gang has come, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GangReport {
    /// Namespace.
    pub namespace: String,
    /// Name of the gang, or of the pod on its own.
    pub gang: String,
    /// `Waiting`, `Planned`, `Reserved` or `Bound`.
    pub phase: &'static str,
    /// Why it waits, when it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it is expected to start, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts: Option<Time>,
    /// Counts its reservations.
    pub epoch: i64,
    /// Its pods.
    pub members: Vec<MemberReport>,
}

/// How far a pod has come, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberReport {
    /// Name.
    pub pod: String,
    /// Its node, reserved or bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Whether it is bound.
    pub bound: bool,
}
