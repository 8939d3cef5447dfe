//! What was seen of nodes and pods, and what to do about it. No IO: decisions go out, results come in.
//!
//! A gang that waits stands in line ([`muster_scheduler_queue`]); when its turn has come, its pods get their
//! places on the ledger at once. Pods that join a gang that runs (a lost one's successor, or more of them)
//! do not wait in line again.

mod account;
mod binding;
mod claims;
mod decision;
mod gates;
mod groups;
mod pods;
mod queues;
mod refusals;
mod report;
mod restore;
mod seen;
mod standing;
mod steps;
mod survey;
mod telling;
mod turn;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use muster_scheduler_api::AdvanceReservation;
use muster_scheduler_core::{Ledger, Map};
use muster_scheduler_queue::job::JobId;
use muster_scheduler_queue::planner::Planner as Line;
use muster_scheduler_queue::policy::Policy;
use muster_scheduler_queue::time::Time;
use muster_scheduler_queue::tree::{Charge, QueueTree};
use muster_scheduler_topology::Topology;
use muster_scheduler_topology::import::TopologySources;

use crate::objects::PodFacts;
use pods::{GangKey, Pods};

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
