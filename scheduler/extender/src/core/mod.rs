//! The state machine of the extender: what was seen and asked goes in, answers and effects come out. No clock,
//! no IO.
//!
//! Filter and prioritize plan, and take nothing: kube-scheduler also asks for simulations and never says which
//! call is one. The first bind call of a gang commits: its whole plan is taken in the ledger and written down as
//! a reservation, and only once that is durable is the first pod bound.

mod bind;
mod explain;
mod filter;
mod observe;
mod own;
mod preempt;
mod recover;
#[cfg(test)]
mod tests;
mod tick;
pub mod types;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use muster_scheduler_core::{Assignment, Ended, Gang, Member, Placement, PodKey};

pub use types::{
    BindOutcome, BindPod, BindStep, Effect, FilterStep, GangKey, GangReport, MemberReport, PlanJob, Planned,
    PodSeen, PodState, ReservedPlace, SeenReservation, Time, Timing, Verdict, WriteOutcome, WriteReservation,
};

use crate::plans::{Plans, Refusal};

/// Plans kept for one gang: one for each set of nodes that kube-scheduler offers.
const PLANS_KEPT: usize = 8;

/// What is known of a pod.
#[derive(Debug)]
struct Known {
    seen: PodSeen,
    gang: GangKey,
    binding: Binding,
    /// The last attempt that failed, and why.
    failure: Option<(u64, String)>,
}

/// How far the binding of a pod has come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Binding {
    /// Nobody asked.
    Idle,
    /// Asked; the reservation is not durable yet.
    Queued { attempt: u64, node: String },
    /// Sent.
    Sent { attempt: u64, node: String },
    /// Sent, and the outcome was lost.
    Unsure { node: String, since: Time },
    /// Done, whatever a late watch says.
    Bound { node: String },
}

impl Binding {
    /// Whether a request may land or has landed.
    fn may_land(&self) -> bool {
        matches!(self, Self::Sent { .. } | Self::Unsure { .. } | Self::Bound { .. })
    }
}

impl Known {
    fn bound_to(&self) -> Option<&str> {
        match (&self.seen.state, &self.binding) {
            (PodState::Bound(assignment), _) => Some(&assignment.node),
            (_, Binding::Bound { node }) => Some(node),
            _ => None,
        }
    }
}

/// A plan that was made and not taken.
#[derive(Debug, Clone)]
struct Cached {
    placement: Placement,
    /// Slots of vanished pods that it hands on.
    instead_of: Vec<PodKey>,
    /// The state of the ledger for which it is known to fit.
    fits_at: u64,
}

/// For which nodes a gang was planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Anywhere,
    /// Nodes offered for one call, by digest.
    Within(u64),
}

/// A place that was taken for a pod.
#[derive(Debug, Clone)]
struct Slot {
    rank: u32,
    assignment: Assignment,
    /// Since when the pod is gone.
    vacant: Option<Time>,
}

/// How much of the reservation the API server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durable {
    /// All of it; or there is none.
    Yes,
    /// A write of this epoch is under way.
    Writing(i64),
    /// It must be written before anything is bound.
    No,
}

#[derive(Debug)]
struct GangState {
    /// The gang without its pods; nothing for a pod on its own, which needs no reservation.
    template: Option<Arc<Gang>>,
    members: BTreeSet<String>,
    /// The controllers that its members are from, or were.
    owners: BTreeSet<String>,
    /// How many members have ended well: they are not missed.
    done: usize,
    /// Pods for which it must wait until somebody changes them, and why.
    held: BTreeMap<String, String>,
    /// Pods whose bind calls wait until the reservation is durable.
    queued: BTreeSet<String>,
    /// Its place in line, which it keeps when it has to be planned again.
    since: Time,
    plans: Vec<Cached>,
    refusals: Vec<(Scope, u64, Refusal)>,
    jobs: BTreeMap<u64, Job>,
    slots: BTreeMap<String, Slot>,
    /// Room that was given up and that the API server may still show as reserved; free from this epoch on.
    ghosts: Vec<(i64, PodKey)>,
    epoch: i64,
    durable: Durable,
    progress: Time,
    marked: bool,
}

/// What a planning job was for.
#[derive(Debug, Clone)]
struct Job {
    scope: Scope,
    freed: u64,
    /// Pods to be placed, by uid.
    uids: BTreeSet<String>,
}

/// The state machine.
#[derive(Debug)]
pub struct ExtenderCore<P: Plans> {
    plans: P,
    timing: Timing,
    /// Grows when room is taken or a node changes: plans must be looked at again.
    taken: u64,
    /// Grows when room is freed or a node changes: refusals may be out of date.
    freed: u64,
    pods: HashMap<PodKey, Known>,
    by_uid: HashMap<String, PodKey>,
    gangs: BTreeMap<GangKey, GangState>,
    ended: Ended,
    /// Gangs for which something may be left to do; the others are bound.
    open: BTreeSet<GangKey>,
    /// Reservations as last seen.
    seen: BTreeMap<GangKey, SeenReservation>,
    jobs: HashMap<u64, GangKey>,
    next: u64,
    synced: bool,
    settled: Time,
    effects: Vec<Effect<P::Snapshot>>,
    planned_ahead: Option<GangKey>,
}

impl<P: Plans> ExtenderCore<P> {
    /// Nothing seen yet.
    pub fn new(plans: P, timing: Timing) -> Self {
        Self {
            plans,
            timing,
            taken: 0,
            freed: 0,
            pods: HashMap::new(),
            by_uid: HashMap::new(),
            gangs: BTreeMap::new(),
            ended: Ended::default(),
            open: BTreeSet::new(),
            seen: BTreeMap::new(),
            jobs: HashMap::new(),
            next: 0,
            synced: false,
            settled: Time::default(),
            effects: Vec::new(),
            planned_ahead: None,
        }
    }

    /// What is to be carried out since the last call.
    pub fn effects(&mut self) -> Vec<Effect<P::Snapshot>> {
        std::mem::take(&mut self.effects)
    }

    /// Whether the picture of the cluster is complete.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// The ledger.
    pub fn plans(&self) -> &P {
        &self.plans
    }

    /// The node that is held or had by a pod, by uid.
    pub fn holds(&self, uid: &str) -> Option<&str> {
        let held = self.plans.held(self.by_uid.get(uid)?)?;
        (held.uid == uid).then_some(held.node.as_str())
    }

    /// Names of `offered` that are not nodes.
    pub fn unknown<'a>(&self, offered: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
        offered.filter(|name| !self.plans.knows(name)).collect()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn take(
        &mut self,
        placement: &Placement,
        instead_of: &[PodKey],
    ) -> Result<(), muster_scheduler_core::TakeError> {
        let moves = placement.0.iter().any(|(pod, _)| self.plans.held(pod).is_some());
        self.plans.take(placement, instead_of)?;
        self.taken += 1;
        if moves || !instead_of.is_empty() {
            self.freed += 1;
        }
        Ok(())
    }

    fn release(&mut self, pod: &PodKey) {
        if self.plans.release(pod) {
            self.freed += 1;
        }
    }

    fn record(&mut self, pod: PodKey, assignment: Assignment) {
        if self.plans.held(&pod) == Some(&assignment) {
            return;
        }
        self.plans.record(pod, assignment);
        self.taken += 1;
        self.freed += 1;
    }

    fn pod(&self, gang: &GangKey, name: &str) -> Option<&Known> {
        self.pods.get(&PodKey::new(&gang.namespace, name))
    }

    /// Whether a pod of the gang is known to be bound.
    fn started(&self, key: &GangKey, gang: &GangState) -> bool {
        gang.members.iter().any(|name| self.pod(key, name).is_some_and(|known| known.bound_to().is_some()))
    }

    /// Whether the pod has a place: it is bound, or a slot is held for this very pod.
    fn placed(&self, key: &GangKey, gang: &GangState, name: &str) -> bool {
        let Some(known) = self.pod(key, name) else { return false };
        known.bound_to().is_some()
            || gang.slots.get(name).is_some_and(|slot| slot.assignment.uid == known.seen.member.uid)
    }

    /// Pods of the gang without a place, in rank order, and the nodes of those that have one.
    fn demand(&self, key: &GangKey, gang: &GangState) -> (Vec<Member>, Vec<String>) {
        let (mut waiting, mut placed_on) = (Vec::new(), Vec::new());
        for name in &gang.members {
            let Some(known) = self.pod(key, name) else { continue };
            if let Some(node) = known.bound_to() {
                placed_on.push(node.to_owned());
            } else if self.placed(key, gang, name) {
                placed_on.extend(gang.slots.get(name).map(|slot| slot.assignment.node.clone()));
            } else if known.seen.planned {
                waiting.push(known.seen.member.clone());
            }
        }
        waiting.sort_by(|left, right| (left.rank, &left.name).cmp(&(right.rank, &right.name)));
        (waiting, placed_on)
    }

    /// Keeps the room of a place that was given up until the API server no longer shows it as reserved: a
    /// restart before that would take it again.
    fn haunt(&mut self, key: &GangKey, assignment: Assignment) {
        let Some(gang) = self.gangs.get_mut(key).filter(|gang| gang.template.is_some()) else { return };
        self.next += 1;
        // Names of pods hold no space.
        let ghost = PodKey::new(&key.namespace, format!("given up {}", self.next));
        gang.ghosts.push((gang.epoch + 1, ghost.clone()));
        self.plans.record(ghost, assignment);
    }

    /// Frees the room that is no longer reserved for anybody to see.
    fn lay_ghosts(&mut self, key: &GangKey) {
        let Some(gang) = self.gangs.get_mut(key) else { return };
        let durable = self.seen.get(key).map_or(0, |seen| seen.epoch);
        let laid: Vec<PodKey> =
            gang.ghosts.extract_if(.., |(epoch, _)| *epoch <= durable).map(|(_, pod)| pod).collect();
        for pod in laid {
            self.release(&pod);
        }
    }

    /// The members of the reservation as it must be written.
    fn content(&self, key: &GangKey) -> Vec<ReservedPlace> {
        let slots = self.gangs.get(key).map(|gang| &gang.slots);
        let kept = slots.into_iter().flatten().filter(|(_, slot)| slot.vacant.is_none());
        kept.map(|(pod, slot)| ReservedPlace {
            pod: pod.clone(),
            uid: slot.assignment.uid.clone(),
            node: slot.assignment.node.clone(),
            gpu_indices: slot.assignment.gpu_indices.clone(),
        })
        .collect()
    }
}

impl GangState {
    fn needed(&self) -> usize {
        self.template.as_ref().map_or(1, |gang| gang.min_available.saturating_sub(self.done).max(1))
    }

    /// The gang with these pods, to be planned.
    fn ask(&self, key: &GangKey, waiting: Vec<Member>, placed_on: Vec<String>) -> Gang {
        match &self.template {
            Some(template) => {
                Gang { waiting, placed_on, min_available: self.needed(), ..Gang::clone(template) }
            }
            None => Gang {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                min_available: 1,
                waiting,
                placed_on,
                ..Gang::default()
            },
        }
    }

    /// The content of the reservation changed.
    fn must_write(&mut self) {
        self.epoch += 1;
        if self.durable == Durable::Yes {
            self.durable = Durable::No;
        }
    }

    fn forget_plans(&mut self) {
        self.plans.clear();
        self.refusals.clear();
    }
}
