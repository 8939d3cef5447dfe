//! What was seen of nodes and pods, and what to do about it. No IO: decisions go out, results come in.
//!
//! A gang that waits stands in line ([`muster_scheduler_queue`]); when its turn has come, its pods get their
//! places on the ledger at once. Pods that join a gang that runs (a lost one's successor, or more of them)
//! do not wait in line again.

mod account;
mod claims;
mod decision;
mod gates;
mod groups;
mod pods;
mod queues;
mod refusals;
mod report;
mod restore;
mod standing;
mod steps;
mod survey;
mod telling;
mod turn;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use muster_scheduler_api::AdvanceReservation;
use muster_scheduler_core::{Assignment, Ledger, Map, Placement, PodKey};
use muster_scheduler_queue::job::JobId;
use muster_scheduler_queue::planner::Planner as Line;
use muster_scheduler_queue::policy::Policy;
use muster_scheduler_queue::time::Time;
use muster_scheduler_queue::tree::{Charge, QueueTree};
use muster_scheduler_topology::Topology;
use muster_scheduler_topology::import::TopologySources;

use crate::objects::{self, PodFacts};
use crate::plan;
use pods::{GangKey, PodView, Pods, State};

pub use account::{Figures, QueueFigures};
pub(crate) use claims::reserved_claims;
pub use claims::{ClaimUse, DeviceEvent, DeviceKind};
pub use decision::{Binding, Decision, Decisions, Eviction, Opening, Outcome, Step, Written};
pub(crate) use groups::Groups;
pub use groups::{Availability, GroupEvent};
pub use queues::QueueError;
pub use report::{Alternative, ExpectedStart, GangReport, NodePlaces, Phase, Prospect, StartBasis};
pub use survey::{DomainReport, GpuCount, NodeReport, QueueReport, TopologyReport};
pub(crate) use survey::{Selection, Survey};
pub use telling::{Answers, Question};

/// How far a gang has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It stands in line.
    Waiting,
    /// It was evicted, or its start came to nothing. It keeps its place in line until it runs, with or without
    /// pods.
    Returning {
        /// Since when.
        since: Time,
    },
    /// Its places are taken, and none of its pods has been seen with one.
    Starting,
    /// It runs.
    Running,
    /// It runs, and a node that it is on is lost or not to be used. When it ends so, it returns.
    Broken,
    /// It runs, and is being evicted.
    Evicting,
}

impl Stage {
    /// Whether it stands in line.
    fn is_in_line(self) -> bool {
        matches!(self, Self::Waiting | Self::Returning { .. })
    }
}

/// What is known of a gang beyond its pods.
#[derive(Debug, Clone)]
struct GangState {
    job: JobId,
    stage: Stage,
    /// What it stands in line with, or stood in line with when it was started.
    asked: standing::Asked,
    /// What the line counts as used by it, while it runs.
    charge: Charge,
    /// When it was last looked at why it waits.
    explained: Option<Timestamp>,
}

/// The planner's view of the cluster. A clone is a picture of it that others may ask.
#[derive(Debug, Clone)]
pub struct Planner {
    scheduler_names: BTreeSet<String>,
    ledger: Ledger,
    line: Line,
    pods: Pods,
    gangs: BTreeMap<GangKey, GangState>,
    jobs: BTreeMap<JobId, GangKey>,
    /// Gangs whose pods have changed since the last decision.
    changed: BTreeSet<GangKey>,
    /// Gangs that have measured another step since the last decision.
    reported: BTreeSet<GangKey>,
    /// Gangs that run and have pods without a place.
    joined: BTreeSet<GangKey>,
    /// When gangs that run were told last that their pods cannot join.
    put_off: BTreeMap<GangKey, Timestamp>,
    /// Whether there may be more room or quota than at the last decision.
    gained: bool,
    /// Gangs that return and have no pods yet.
    expected_back: BTreeSet<GangKey>,
    /// Gangs whose plan is being carried out, or taken away. Nothing else is planned for them meanwhile.
    under_way: BTreeSet<GangKey>,
    /// Written plans.
    written: BTreeMap<GangKey, Written>,
    /// Gangs of which all that must start together have had places, by a written plan or in this run.
    begun: BTreeSet<GangKey>,
    /// Gangs whose last binding was refused.
    refusals: BTreeMap<GangKey, refusals::Refusal>,
    /// Gangs that have given room back because they were refused, and have not found any since.
    gave_back: BTreeSet<GangKey>,
    /// Gangs of which pods could not be evicted.
    not_evicted: BTreeSet<GangKey>,
    /// Pods whose gates are open and that are not bound yet.
    steered: gates::Steered,
    /// What plans say of pods that are to be let go, and what pods say that no plan does.
    words: gates::Words,
    last_job: u64,
    queues: queues::Queues,
    windows: windows::Windows,
    claims: claims::Claims,
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
            reported: BTreeSet::new(),
            joined: BTreeSet::new(),
            put_off: BTreeMap::new(),
            gained: false,
            expected_back: BTreeSet::new(),
            under_way: BTreeSet::new(),
            written: BTreeMap::new(),
            begun: BTreeSet::new(),
            refusals: BTreeMap::new(),
            gave_back: BTreeSet::new(),
            not_evicted: BTreeSet::new(),
            steered: gates::Steered::default(),
            words: gates::Words::default(),
            last_job: 0,
            queues: queues::Queues::default(),
            windows: windows::Windows::default(),
            claims: claims::Claims::default(),
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

    /// An advance reservation appeared or changed.
    pub fn reservation_seen(&mut self, reservation: &AdvanceReservation) {
        self.windows.set(reservation.metadata.name.clone().unwrap_or_default(), reservation.spec.clone());
    }

    /// An advance reservation is gone.
    pub fn reservation_gone(&mut self, name: &str) {
        self.windows.remove(name);
    }

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

    /// Where the nodes are.
    pub fn map(&mut self) -> Arc<Map> {
        self.ledger.space().map()
    }

    /// Free and all GPUs of each node, in the order of the map's positions; those that are shared are not free.
    pub fn gpus(&mut self) -> Vec<(u32, u32)> {
        let map = self.map();
        let space = self.ledger.space();
        let gpus =
            |node| (space.room(node).devices.whole(), space.node(node).map_or(0, |node| node.gpu_slots));
        map.nodes().map(gpus).collect()
    }

    /// Why what others wrote down about where nodes are is not followed.
    pub fn places_fault(&mut self) -> Option<String> {
        self.ledger.space().map().fault().map(ToString::to_string)
    }

    /// What was written down of the inside of nodes and is not followed, a sentence each.
    pub fn inside_faults(&mut self) -> Vec<String> {
        self.ledger.space().map().inside_faults().to_vec()
    }

    /// A tree of nodes was given: it counts before all else.
    pub fn tree_given(&mut self, tree: Topology) {
        let sources = TopologySources { tree: Some(tree), ..self.ledger.topology_sources().clone() };
        self.places_described(sources);
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
    fn found(&mut self, facts: PodFacts, ours: bool) {
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
    fn binding(&mut self, gang: &GangKey, placement: Placement) -> Binding {
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

    fn insert(&mut self, key: PodKey, view: PodView) {
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

    fn forget(&mut self, key: &PodKey) {
        self.drop_view(key);
        self.ledger.release(key);
        self.gained = true;
    }
}

fn line(tree: QueueTree) -> Line {
    #[expect(clippy::expect_used, reason = "the name is one of the policies' own")]
    let policy = Policy::named("muster").expect("a policy of this name");
    Line::new(policy, tree)
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
