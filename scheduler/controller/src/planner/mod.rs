//! What was seen of nodes and pods, and what to do about it. No IO: decisions go out, results come in.
//!
//! A gang that waits stands in line ([`muster_scheduler_queue`]); when its turn has come, its pods get their
//! places on the ledger at once. Pods that join a gang that runs (a lost one's successor, or more of them)
//! do not wait in line again.

mod decision;
mod groups;
mod pods;
mod queues;
mod report;
mod standing;
mod telling;
mod turn;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use muster_scheduler_api::GangReservation;
use muster_scheduler_core::{Assignment, Ledger, Placement, PodKey};
use muster_scheduler_queue::job::JobId;
use muster_scheduler_queue::planner::Planner as Line;
use muster_scheduler_queue::policy::Policy;
use muster_scheduler_queue::time::Time;
use muster_scheduler_queue::tree::QueueTree;

use crate::objects::{self, PodFacts, Stage};
use pods::{GangKey, PodView, Pods, State};

pub use decision::{Binding, Decision, Decisions};
pub use groups::{Availability, GroupEvent};
pub use queues::QueueError;
pub use report::{Alternative, ExpectedStart, GangReport, NodePlaces, Phase, Prospect, StartBasis};

/// What is known of a gang beyond its pods.
#[derive(Debug, Clone)]
struct GangState {
    job: JobId,
    /// It has been started, and has ended for the line when it has no place any more.
    running: bool,
    /// What it stood in line with: changed pods mean another place in line.
    asked: standing::Asked,
    /// One of its pods has been seen with a place.
    has_run: bool,
    /// It is being evicted: when it comes back it takes its old place in line.
    evicting: bool,
    /// When it was last looked at why it waits.
    explained: Option<Timestamp>,
}

/// The place in line that a gang had when it was evicted.
#[derive(Debug, Clone, Copy)]
struct Place {
    submitted: Time,
    evicted: Time,
}

/// The planner's view of the cluster.
#[derive(Debug)]
pub struct Planner {
    scheduler_names: BTreeSet<String>,
    ledger: Ledger,
    line: Line,
    pods: Pods,
    gangs: BTreeMap<GangKey, GangState>,
    jobs: BTreeMap<JobId, GangKey>,
    /// Gangs whose pods have changed since the last decision.
    changed: BTreeSet<GangKey>,
    /// Gangs that run and have pods without a place.
    joined: BTreeSet<GangKey>,
    /// Places in line of gangs that were evicted and will come back.
    returning: BTreeMap<GangKey, Place>,
    last_job: u64,
    queues: queues::Queues,
}

impl Planner {
    /// A planner for pods of these `spec.schedulerName`s.
    pub fn new(scheduler_names: impl IntoIterator<Item = String>) -> Self {
        let tree = QueueTree::unlimited(muster_scheduler_api::DEFAULT_QUEUE);
        Self {
            scheduler_names: scheduler_names.into_iter().collect(),
            ledger: Ledger::default(),
            line: line(tree),
            pods: Pods::default(),
            gangs: BTreeMap::new(),
            jobs: BTreeMap::new(),
            changed: BTreeSet::new(),
            joined: BTreeSet::new(),
            returning: BTreeMap::new(),
            last_job: 0,
            queues: queues::Queues::default(),
        }
    }

    /// A queue appeared or changed.
    pub fn queue_seen(&mut self, queue: &muster_scheduler_api::Queue) {
        self.queues.set(queue.metadata.name.clone().unwrap_or_default(), queue.spec.clone());
    }

    /// A queue is gone.
    pub fn queue_gone(&mut self, name: &str) {
        self.queues.remove(name);
    }

    /// A node appeared or changed.
    pub fn node_seen(&mut self, node: &core::Node) {
        let node = objects::node(node);
        if self.ledger.node(&node.name) != Some(&node) {
            self.ledger.set_node(node);
            self.line.nodes_changed();
        }
    }

    /// A node is gone.
    pub fn node_gone(&mut self, name: &str) {
        self.ledger.remove_node(name);
        self.line.nodes_changed();
    }

    /// A pod appeared or changed.
    pub fn pod_seen(&mut self, pod: &core::Pod) {
        let facts = PodFacts::read(pod);
        let ours = self.scheduler_names.contains(&facts.scheduler_name);
        match &facts.stage {
            Stage::Bound(assignment) => {
                let (assignment, state) = (assignment.clone(), State::Placed(assignment.node.clone()));
                self.placed(facts, assignment, ours.then_some(state));
            }
            Stage::Leaving(assignment) => {
                let assignment = assignment.clone();
                self.placed(facts, assignment, ours.then_some(State::Leaving));
            }
            Stage::Ended(_) => self.forget(&facts.key),
            Stage::Waiting if ours => self.waits(facts),
            Stage::Waiting | Stage::Gated(_) => {
                // What a pod of the same name held is free: it went while nobody looked.
                if self.ledger.assignment(&facts.key).is_some_and(|held| held.uid != facts.member.uid) {
                    self.forget(&facts.key);
                }
            }
        }
    }

    fn placed(&mut self, facts: PodFacts, mut assignment: Assignment, state: Option<State>) {
        let key = facts.key.clone();
        // Slots that nobody wrote down stay the node's business, but those given out here are known.
        if let Some(known) = self.ledger.assignment(&key)
            && assignment.gpu_indices.is_empty()
            && known.uid == assignment.uid
            && known.node == assignment.node
        {
            assignment.gpu_indices.clone_from(&known.gpu_indices);
        }
        self.ledger.record(key.clone(), assignment);
        match state {
            Some(state) => self.insert(key, PodView::new(facts, state)),
            None => self.drop_view(&key),
        }
    }

    fn waits(&mut self, facts: PodFacts) {
        let key = facts.key.clone();
        let known = self
            .pods
            .get(&key)
            .map(|known| (known.member.uid.clone(), known.state.clone(), known.told.clone()));
        let mut view = PodView::new(facts, State::Waiting);
        match known {
            Some((uid, state, told)) if uid == view.member.uid => {
                view.told = told;
                // A binding that is under way is not undone by an older picture of the pod.
                if let State::Binding(_) = state {
                    view.state = state;
                }
            }
            Some(_) => self.forget(&key),
            None => {}
        }
        self.insert(key, view);
    }

    /// A pod is gone.
    pub fn pod_gone(&mut self, pod: &core::Pod) {
        let key = key_of(pod);
        // A later pod of the same name may already be here.
        let uid = pod.metadata.uid.as_deref();
        let viewed = self.pods.get(&key).map(|known| known.member.uid.as_str());
        let recorded = self.ledger.assignment(&key).map(|assignment| assignment.uid.as_str());
        if viewed.is_some() && viewed == uid || viewed.is_none() && recorded.is_some() && recorded == uid {
            self.forget(&key);
        }
    }

    /// A plan that an earlier run wrote down and may not have finished: its unbound pods keep their places. The
    /// phase is not asked: it may be that of the plan before, and a plan whose pods are all bound gives nothing.
    pub fn restore(&mut self, reservation: &GangReservation) -> Option<Binding> {
        let namespace = reservation.metadata.namespace.clone().unwrap_or_default();
        let mut places = Vec::new();
        for reserved in &reservation.spec.members {
            let key = PodKey::new(&namespace, &reserved.pod);
            let waiting = self
                .pods
                .get(&key)
                .filter(|pod| pod.state == State::Waiting && pod.member.uid == reserved.uid);
            let Some(waiting) = waiting else { continue };
            places.push((
                key,
                Assignment {
                    uid: reserved.uid.clone(),
                    node: reserved.node.clone(),
                    resources: waiting.member.requests.clone(),
                    gpu_indices: reserved.gpu_indices.clone(),
                    gpu_share: waiting.member.gpu_share,
                },
            ));
        }
        let placement = Placement(places);
        if placement.0.is_empty() {
            return None;
        }
        if let Err(error) = self.ledger.take(&placement) {
            tracing::info!(%error, gang = reservation.spec.gang, "the plan of the last run no longer fits; planning anew");
            return None;
        }
        Some(self.binding(namespace, reservation.spec.gang.clone(), placement))
    }

    /// A pod could not be bound: its place is free again, and it is planned anew.
    pub fn binding_failed(&mut self, pod: &PodKey) {
        if let Some(view) = self.pods.get_mut(pod)
            && let State::Binding(_) = view.state
        {
            view.state = State::Waiting;
            self.changed.insert(view.gang.clone());
            self.ledger.release(pod);
        }
    }

    /// Notes that the places are taken and about to be bound.
    fn binding(&mut self, namespace: String, gang: String, placement: Placement) -> Binding {
        let mut binding = Binding { namespace, gang, durable: false, owner: None, placement };
        for (pod, assignment) in &binding.placement.0 {
            if let Some(view) = self.pods.get_mut(pod) {
                view.state = State::Binding(assignment.node.clone());
                binding.durable |= view.named_gang;
                binding.owner = view.owner.clone().or(binding.owner);
                self.changed.insert(view.gang.clone());
            }
        }
        binding
    }

    fn insert(&mut self, key: PodKey, view: PodView) {
        self.changed.insert(view.gang.clone());
        if let Some(before) = self.pods.get(&key)
            && before.gang != view.gang
        {
            self.changed.insert(before.gang.clone());
        }
        self.pods.insert(key, view);
    }

    fn drop_view(&mut self, key: &PodKey) {
        if let Some(gang) = self.pods.remove(key) {
            self.changed.insert(gang);
        }
    }

    fn forget(&mut self, key: &PodKey) {
        self.drop_view(key);
        self.ledger.release(key);
    }
}

fn line(tree: QueueTree) -> Line {
    #[expect(clippy::expect_used, reason = "the name is one of the policies' own")]
    let policy = Policy::named("muster").expect("a policy of this name");
    Line::new(policy, tree)
}

fn key_of(pod: &core::Pod) -> PodKey {
    PodKey::new(
        pod.metadata.namespace.clone().unwrap_or_default(),
        pod.metadata.name.clone().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests;
