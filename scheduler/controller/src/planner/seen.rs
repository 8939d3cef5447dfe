//! What was seen of nodes and pods.

use k8s_openapi::api::core::v1 as core;
use muster_scheduler_core::{Assignment, PodKey};
use muster_scheduler_topology::import::TopologySources;

use super::decision::Opening;
use super::pods::{GangKey, PodView, State};
use super::{Planner, telling};
use crate::objects::{self, PodFacts};

impl Planner {
    /// A node appeared or changed.
    pub fn node_seen(&mut self, node: &core::Node) {
        let node = objects::node(node);
        let known = self.ledger.node(&node.name);
        if known != Some(&node) {
            if known.is_none_or(|known| known.schedulable != node.schedulable) {
                self.gangs_on_change(&node.name);
            }
            self.ledger.set_node(node);
            self.line.nodes_changed();
            self.gained = true;
            self.windows.nodes_changed();
        }
    }

    /// A node is gone.
    pub fn node_gone(&mut self, name: &str) {
        self.gangs_on_change(name);
        self.ledger.remove_node(name);
        self.line.nodes_changed();
        self.gained = true;
        self.windows.nodes_changed();
    }

    /// Gangs on a node are looked at again.
    fn gangs_on_change(&mut self, node: &str) {
        let views = self.ledger.pods_on(node).filter_map(|pod| self.pods.get(pod));
        self.changed.extend(views.map(|view| view.gang.clone()));
    }

    /// What others wrote down about where nodes are has changed.
    pub fn places_described(&mut self, sources: TopologySources) {
        self.ledger.set_topology_sources(sources);
        self.line.nodes_changed();
        self.gained = true;
    }

    /// A pod appeared or changed.
    pub fn pod_seen(&mut self, pod: &core::Pod) {
        let facts = PodFacts::read(pod);
        let ours = self.scheduler_names.contains(&facts.scheduler_name);
        match &facts.stage {
            objects::Stage::Waiting if ours => self.waits(facts, pod, None),
            stage if stage.waits_at_gang_gate() => {
                let opening = if ours { Opening::ThenBind } else { Opening::Only };
                self.waits(facts, pod, Some(opening));
            }
            _ => self.found(facts, ours),
        }
    }

    /// A pod that waits for nothing of Muster's.
    pub(super) fn found(&mut self, facts: PodFacts, ours: bool) {
        let planned = ours || self.was_let_go(&facts);
        match &facts.stage {
            objects::Stage::Bound(assignment) => {
                let (assignment, state) = (assignment.clone(), State::Placed(assignment.node.clone()));
                self.placed(facts, assignment, planned.then_some(state));
            }
            objects::Stage::Leaving(assignment) => {
                let assignment = assignment.clone();
                self.placed(facts, assignment, planned.then_some(State::Leaving));
            }
            objects::Stage::Ended(ending) => {
                self.forget(&facts.key);
                self.words.forget(&facts.key, &facts.member.uid);
                if *ending == objects::Ending::Succeeded {
                    self.ended_well(facts);
                }
            }
            objects::Stage::Waiting if planned => self.steered(facts),
            stage @ (objects::Stage::Waiting | objects::Stage::Gated(_)) => {
                // What a pod of the same name held is free: it went while nobody looked. Whom somebody else let go
                // is no member any more; gates that are back are an older picture of the pod.
                let let_go = *stage == objects::Stage::Waiting;
                let uid = &facts.member.uid;
                let viewed = self.pods.get(&facts.key).is_some_and(|view| let_go || view.member.uid != *uid);
                let held = self.ledger.assignment(&facts.key).is_some_and(|held| let_go || held.uid != *uid);
                if viewed || held {
                    self.forget(&facts.key);
                }
            }
        }
    }

    fn placed(&mut self, facts: PodFacts, mut assignment: Assignment, state: Option<State>) {
        let key = facts.key.clone();
        // Slots that nobody wrote down stay the node's business. Those that are known are kept, whatever is written on
        // the pod later.
        if let Some(known) = self.ledger.assignment(&key)
            && known.uid == assignment.uid
            && known.node == assignment.node
        {
            if !known.gpu_indices.is_empty() {
                assignment.gpu_indices.clone_from(&known.gpu_indices);
            }
            // Its claims say so themselves, but that may be seen later.
            assignment.claims.clone_from(&known.claims);
        }
        self.ledger.record(key.clone(), assignment);
        self.steered.remove(&key);
        match state {
            Some(state) => self.insert(key, PodView::new(facts, state)),
            None => self.drop_view(&key),
        }
    }

    fn waits(&mut self, facts: PodFacts, pod: &core::Pod, gate: Option<Opening>) {
        let key = facts.key.clone();
        let known = self
            .pods
            .get(&key)
            .map(|known| (known.member.uid.clone(), known.state.clone(), known.told.clone()));
        let mut view = PodView::new(facts, State::Waiting);
        view.gate = gate;
        match known {
            Some((uid, state, told)) if uid == view.member.uid => {
                view.told = told;
                // A binding that is under way is not undone by an older picture of the pod.
                if let State::Binding(_) = state {
                    view.state = state;
                }
            }
            Some(_) => {
                self.forget(&key);
                view.told = telling::told_before(pod);
            }
            None => view.told = telling::told_before(pod),
        }
        self.insert(key, view);
    }

    /// The pod of this uid is gone.
    pub fn pod_gone(&mut self, key: &PodKey, uid: &str) {
        // A later pod of the same name may already be here.
        let viewed = self.pods.get(key).map(|known| known.member.uid.as_str());
        let recorded = self.ledger.assignment(key).map(|assignment| assignment.uid.as_str());
        if viewed.or(recorded) == Some(uid) {
            self.forget(key);
        }
        self.words.forget(key, uid);
        let done_in = self.pods.ended.gone(key, uid);
        self.changed.extend(done_in.map(GangKey::from));
    }

    /// A member is done: nobody will bring it back, and its gang does without it.
    fn ended_well(&mut self, facts: PodFacts) {
        let (membership, owner) = (facts.membership, facts.owner);
        if let Some(owner) = owner.filter(|_| membership.counts_ended()) {
            let gang = (&membership.gang).into();
            self.changed.insert(membership.gang);
            self.pods.ended.well(facts.key, facts.member.uid, gang, owner.uid);
        }
    }

    pub(super) fn insert(&mut self, key: PodKey, view: PodView) {
        self.changed.insert(view.gang.clone());
        if !view.claims.is_empty() && view.state == State::Waiting {
            self.claims.want();
        }
        let before = self.pods.get(&key);
        if view.step.is_some() && before.and_then(|before| before.step) != view.step {
            self.reported.insert(view.gang.clone());
        }
        if let Some(before) = before
            && before.gang != view.gang
        {
            self.changed.insert(before.gang.clone());
        }
        let done_in = self.pods.ended.replaced(&key);
        self.changed.extend(done_in.map(GangKey::from));
        self.pods.insert(key, view);
    }

    fn drop_view(&mut self, key: &PodKey) {
        self.steered.remove(key);
        if let Some(gang) = self.pods.remove(key) {
            self.changed.insert(gang);
        }
    }

    pub(super) fn forget(&mut self, key: &PodKey) {
        self.drop_view(key);
        self.ledger.release(key);
        self.gained = true;
    }
}
