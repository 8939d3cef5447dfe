//! Pods whose gate has been opened towards a place, until another scheduler has bound them there.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use muster_scheduler_api::ReservedMember;
use muster_scheduler_core::{Assignment, PodKey};

use super::decision::{Decision, Decisions, Eviction};
use super::pods::{PodView, State};
use super::{Planner, PodFacts};
use crate::plan;

/// A pod that was steered somewhere may be kept from it for so long before it is given up.
const GIVEN_UP: SignedDuration = SignedDuration::from_secs(60);

/// Pods that are steered and not bound.
pub(super) type Steered = BTreeMap<PodKey, Steer>;

/// How a pod that was steered fares.
#[derive(Debug, Clone, Default)]
pub(super) struct Steer {
    /// Its own scheduler finds no node for it.
    unschedulable: bool,
    /// Since when it is known that it cannot go where it was steered to.
    in_vain: Option<Timestamp>,
}

/// What plans say of pods that are let go, and what pods say of themselves. Anybody can write on a pod that it was let
/// go to a place, so it takes room only when a plan says the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Words {
    /// The places that plans gave last to pods behind gates.
    planned: BTreeMap<PodKey, ReservedMember>,
    /// Pods that say so, and no plan does that is known yet.
    unconfirmed: BTreeMap<PodKey, PodFacts>,
}

impl Words {
    /// A plan lets a pod go to its place.
    pub(super) fn plan(&mut self, pod: PodKey, place: &Assignment) {
        let place = plan::reserved(&pod, place);
        self.planned.insert(pod, place);
    }

    /// The pod of this uid is gone.
    pub(super) fn forget(&mut self, pod: &PodKey, uid: &str) {
        if self.planned.get(pod).is_some_and(|place| place.uid == uid) {
            self.planned.remove(pod);
        }
        if self.unconfirmed.get(pod).is_some_and(|facts| facts.member.uid == uid) {
            self.unconfirmed.remove(pod);
        }
    }
}

impl Planner {
    /// Whether a plan, of this run or one before, has let the pod go to where it says that it was let go to.
    pub(super) fn was_let_go(&mut self, facts: &PodFacts) -> bool {
        self.words.unconfirmed.remove(&facts.key);
        let Some(place) = &facts.steered_to else { return false };
        let planned = self.words.planned.get(&facts.key);
        let planned = planned.is_some_and(|planned| planned.uid == place.uid && planned.node == place.node);
        if !planned {
            self.words.unconfirmed.insert(facts.key.clone(), facts.clone());
        }
        planned
    }

    /// A plan of an earlier run has these members: those that say so, too, were let go.
    pub(super) fn confirm(&mut self, namespace: &str, members: &[ReservedMember]) {
        for member in members {
            let pod = PodKey::new(namespace, &member.pod);
            let facts = self.words.unconfirmed.get(&pod).cloned();
            let behind_gate = self.pods.get(&pod).is_some_and(|view| view.gate.is_some());
            if facts.is_none() && !behind_gate {
                continue;
            }
            self.words.planned.insert(pod, member.clone());
            if let Some(facts) = facts {
                let ours = self.scheduler_names.contains(&facts.scheduler_name);
                self.found(facts, ours);
            }
        }
    }

    /// A pod was let go to its place, by this run or one before, and its own scheduler has not bound it yet.
    pub(super) fn steered(&mut self, facts: PodFacts) {
        let Some(mut place) = facts.steered_to.clone() else { return };
        let key = facts.key.clone();
        if let Some(planned) = self.words.planned.get(&key) {
            place.gpu_indices.clone_from(&planned.gpu_indices);
        }
        if self.ledger.assignment(&key).is_none_or(|held| held.uid != place.uid || held.node != place.node) {
            self.forget(&key);
            self.ledger.record(key.clone(), place.clone());
        }
        self.steered.entry(key.clone()).or_default().unschedulable = facts.unschedulable;
        self.insert(key, PodView::new(facts, State::Binding(place.node)));
    }

    /// Gives pods up that can never be bound to the only node that is left to them, because it is lost or their own
    /// scheduler refuses it. They are evicted, so that their owner creates others; those without an owner are left to
    /// who created them, and their places to others.
    pub(super) fn give_up_misled(&mut self, now: Timestamp, decisions: &mut Decisions) {
        let mut misled: Vec<(PodKey, String)> = Vec::new();
        for (key, steer) in &mut self.steered {
            let (Some(place), Some(view)) = (self.ledger.assignment(key), self.pods.get(key)) else {
                continue;
            };
            let node = &place.node;
            let because = if self.ledger.node(node).is_none_or(|node| !node.schedulable) {
                format!("node {node}, which is lost")
            } else if steer.unschedulable {
                format!("node {node}, and scheduler {} finds no room for it there", view.scheduler_name)
            } else {
                steer.in_vain = None;
                continue;
            };
            let left = GIVEN_UP - now.duration_since(*steer.in_vain.get_or_insert(now));
            if left > SignedDuration::ZERO {
                decisions.ask_again_in(left);
            } else {
                // Asked for again if it is still there after as long.
                steer.in_vain = Some(now);
                misled.push((key.clone(), because));
            }
        }
        for (pod, because) in misled {
            let Some(view) = self.pods.get(&pod) else { continue };
            let uid = view.member.uid.clone();
            if view.owner.is_none() {
                self.words.forget(&pod, &uid);
                self.forget(&pod);
                continue;
            }
            let message = format!("Its gate was opened to {because}; its owner may create another");
            let (pods, why, foreign) = (vec![(pod, uid)], Eviction::SteeredInVain, true);
            decisions.now.push(Decision::Evict { pods, why, foreign, message });
        }
    }
}
