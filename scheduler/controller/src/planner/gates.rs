//! Pods whose gate has been opened towards a place, until another scheduler has bound them there.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use muster_scheduler_core::PodKey;

use super::decision::{Decision, Decisions};
use super::pods::{PodView, State};
use super::{Planner, PodFacts};

/// A node may be away for so long before pods that were steered to it are given up.
const GIVEN_UP: SignedDuration = SignedDuration::from_secs(60);

/// Pods that are steered and not bound, with the time since when their node has been lost.
pub(super) type Steered = BTreeMap<PodKey, Option<Timestamp>>;

impl Planner {
    /// A pod was let go to its place, by this run or one before, and its own scheduler has not bound it yet.
    pub(super) fn steered(&mut self, facts: PodFacts) {
        let Some(place) = facts.steered_to.clone() else { return };
        let key = facts.key.clone();
        if self.ledger.assignment(&key).is_none_or(|held| held.uid != place.uid || held.node != place.node) {
            self.forget(&key);
            self.ledger.record(key.clone(), place.clone());
        }
        self.steered.entry(key.clone()).or_default();
        self.insert(key, PodView::new(facts, State::Binding(place.node)));
    }

    /// Evicts pods that can never be bound because the only node left to them is lost, so that their owner creates
    /// others. Pods without an owner are left to who created them.
    pub(super) fn evict_misled(&mut self, now: Timestamp, decisions: &mut Decisions) {
        let mut misled: Vec<(PodKey, String, String)> = Vec::new();
        for (key, since) in &mut self.steered {
            let (Some(place), Some(view)) = (self.ledger.assignment(key), self.pods.get(key)) else {
                continue;
            };
            if self.ledger.node(&place.node).is_some_and(|node| node.schedulable) || view.owner.is_none() {
                *since = None;
                continue;
            }
            let left = GIVEN_UP - now.duration_since(*since.get_or_insert(now));
            if left > SignedDuration::ZERO {
                decisions.ask_again_in(left);
            } else {
                // Asked for again if it is still there after as long.
                *since = Some(now);
                misled.push((key.clone(), view.member.uid.clone(), place.node.clone()));
            }
        }
        for (pod, uid, node) in misled {
            let message =
                format!("Its gate was opened to node {node}, which is lost; its owner may create another");
            decisions.now.push(Decision::Evict { pods: vec![(pod, uid)], message });
        }
    }
}
