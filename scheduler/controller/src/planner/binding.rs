//! What goes out to be bound, and what came of it.

use std::collections::BTreeMap;

use muster_scheduler_core::{Placement, PodKey};

use super::Planner;
use super::decision::{Binding, Outcome};
use super::pods::{GangKey, State};
use crate::plan;

impl Planner {
    /// What came of a binding. Places of pods that do not have them are free again, and planned anew.
    pub fn carried_out(&mut self, outcome: &Outcome) {
        let key = GangKey { namespace: outcome.namespace.clone(), name: outcome.gang.clone() };
        self.under_way.remove(&key);
        match &outcome.written {
            Some(written) => self.written.insert(key.clone(), written.clone()),
            None => self.written.remove(&key),
        };
        self.count_refusals(&key, outcome);
        for (pod, uid) in &outcome.refused {
            if let Some(view) = self.pods.get_mut(pod)
                && view.member.uid == *uid
                && let State::Binding(_) = view.state
            {
                view.state = State::Waiting;
                self.changed.insert(view.gang.clone());
                self.gave_back.insert(key.clone());
                self.ledger.release(pod);
                self.pods.resolve_again(pod);
                self.gained = true;
            }
        }
        self.claims_end(&key, &outcome.claims);
        self.changed.insert(key);
    }

    /// Some of these pods could not be evicted. Their gang runs on, as far as it still does.
    pub fn not_evicted(&mut self, pods: &[(PodKey, String)]) {
        let there = pods.iter().filter_map(|(pod, uid)| {
            let view = self.pods.get(pod).filter(|view| view.member.uid == *uid)?;
            Some(view.gang.clone())
        });
        self.not_evicted.extend(there);
    }

    /// The plan of a gang that was gone has been taken away, or stays because somebody else has changed it.
    pub fn discarded(&mut self, namespace: &str, gang: &str) {
        let key = GangKey { namespace: namespace.to_owned(), name: gang.to_owned() };
        self.under_way.remove(&key);
        self.written.remove(&key);
        self.changed.insert(key);
    }

    /// Notes that the places are taken and about to be bound.
    pub(super) fn binding(&mut self, gang: &GangKey, placement: Placement) -> Binding {
        let places = placement.0.into_iter().filter(|(pod, _)| !pod.is_spare()).collect();
        let mut binding = Binding {
            namespace: gang.namespace.clone(),
            gang: gang.name.clone(),
            queue: self.gangs.get(gang).map(|state| state.asked.queue().to_owned()).unwrap_or_default(),
            waited: None,
            predicted: None,
            durable: false,
            replaces: self.written.get(gang).cloned(),
            owner: None,
            settled: Vec::new(),
            placement: Placement(places),
            gates: BTreeMap::new(),
            claims: BTreeMap::new(),
            unheeded: BTreeMap::new(),
        };
        binding.claims = self.claim_uses(&binding.placement);
        self.claims_begin(gang, &binding.placement);
        // What claims get is asked after a restart, too.
        binding.durable = !binding.claims.is_empty();
        for (pod, view) in self.pods.of(gang).filter(|(_, view)| view.state.has_place()) {
            if let Some(assignment) = self.ledger.assignment(pod) {
                binding.settled.push(plan::reserved(pod, assignment));
            }
            binding.owner = view.owner.clone().or(binding.owner);
        }
        for (spare, assignment) in self.ledger.spares(&gang.namespace, &gang.name) {
            binding.settled.push(plan::reserved(spare, assignment));
        }
        for (pod, assignment) in &binding.placement.0 {
            if let Some(view) = self.pods.get_mut(pod) {
                view.state = State::Binding(assignment.node.clone());
                binding.durable |= view.named_gang;
                if !view.unheeded.is_empty() {
                    binding.unheeded.insert(pod.clone(), view.unheeded.clone());
                }
                if let Some(opening) = view.gate {
                    // Whether the pod was let go here is asked after a restart, too.
                    binding.durable = true;
                    binding.gates.insert(pod.clone(), opening);
                    self.words.plan(pod.clone(), assignment);
                }
                binding.owner = view.owner.clone().or(binding.owner);
                self.changed.insert(view.gang.clone());
            }
        }
        self.gave_back.remove(gang);
        self.under_way.insert(gang.clone());
        binding
    }
}
