//! What the planner knows of each pod and of the gang that it belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use muster_scheduler_core::{Closeness, Gang, Member, PodKey};
use muster_scheduler_queue::job::Restart;
use muster_scheduler_queue::time::Milliseconds;

use super::decision::Opening;
use super::groups::Groups;
use super::standing::Held;
use crate::objects::{ForeignGroup, GroupKey, GroupKind, GroupPart, PodFacts, Problem};

pub(crate) use crate::objects::GangKey;

/// How far a pod has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// It waits for a place.
    Waiting,
    /// Its place is taken on the ledger; the binding is under way.
    Binding(String),
    /// It has a place.
    Placed(String),
    /// It ends: its room is not free yet, but its gang no longer counts on it.
    Leaving,
}

impl State {
    pub(crate) fn has_place(&self) -> bool {
        matches!(self, Self::Binding(_) | Self::Placed(_))
    }
}

/// What a pod was told last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// Of what kind; not known of what an earlier run told it.
    pub(crate) kind: Option<Kind>,
    pub(crate) message: String,
    pub(crate) at: Timestamp,
}

/// Kinds of reasons why pods wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Others of the gang are missing.
    Members,
    /// Somebody or something keeps it back.
    Gate,
    /// Its queue has too little left.
    Quota,
    /// Its queue could never have enough.
    NeverQuota,
    /// The nodes could never take it.
    NeverFits,
    /// The nodes have too little left.
    Room,
    /// What is free is promised or set aside.
    Promised,
    /// Others go first.
    Behind,
    /// It starts.
    Starts,
}

/// How many pods of a gang are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) waiting: usize,
    pub(crate) binding: usize,
    pub(crate) placed: usize,
    pub(crate) leaving: usize,
}

impl Census {
    /// Those that the gang counts on.
    pub(crate) fn with_place(self) -> usize {
        self.binding + self.placed
    }

    /// Those that take room.
    pub(crate) fn with_room(self) -> usize {
        self.with_place() + self.leaving
    }
}

/// A pod of a gang; a pod without one is a gang of its own.
#[derive(Debug, Clone)]
pub(crate) struct PodView {
    pub(crate) gang: GangKey,
    /// Whether the gang was named by someone, or is just this pod.
    pub(crate) named_gang: bool,
    pub(crate) member: Member,
    pub(crate) min_available: usize,
    /// The object of another system that describes the gang.
    pub(crate) described_by: Option<GroupPart>,
    pub(crate) priority: i32,
    /// Seconds since 1970.
    pub(crate) created: i64,
    /// The queue that the pod itself names.
    pub(crate) queue: Option<String>,
    pub(crate) user: String,
    pub(crate) limit: Option<Milliseconds>,
    pub(crate) reservation: Option<String>,
    pub(crate) restart: Restart,
    pub(crate) closeness: Closeness,
    pub(crate) spares: u32,
    pub(crate) owner: Option<OwnerReference>,
    /// The scheduler that it names.
    pub(crate) scheduler_name: String,
    /// What it asks for and cannot have as it is written.
    pub(crate) problems: Vec<Problem>,
    /// Fields that restrict where it may go, and that no plan looks at.
    pub(crate) unheeded: Vec<&'static str>,
    pub(crate) told: Option<Told>,
    pub(crate) state: State,
    /// It waits behind the gate of gangs, and this is how the gate opens.
    pub(crate) gate: Option<Opening>,
}

impl PodView {
    pub(crate) fn new(facts: PodFacts, state: State) -> Self {
        let membership = facts.membership;
        Self {
            gang: membership.gang,
            named_gang: membership.named,
            member: facts.member,
            min_available: membership.min_available,
            described_by: membership.described_by,
            priority: facts.priority,
            created: facts.created,
            queue: facts.queue,
            user: facts.user,
            limit: facts.limit,
            reservation: facts.reservation,
            restart: facts.restart,
            closeness: membership.closeness,
            spares: membership.spares,
            owner: facts.owner,
            scheduler_name: facts.scheduler_name,
            problems: facts.problems,
            unheeded: facts.unheeded,
            told: None,
            state,
            gate: None,
        }
    }
}

/// All pods of the planner, by name and by gang.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pods {
    /// Shared with the pictures that are taken of the planner.
    views: BTreeMap<PodKey, Arc<PodView>>,
    gangs: BTreeMap<GangKey, Arc<BTreeSet<PodKey>>>,
    /// Gangs by the object that describes them, with how many of their pods say so.
    described: BTreeMap<GroupKey, BTreeMap<GangKey, usize>>,
    pub(super) groups: Groups,
}

impl Pods {
    pub(crate) fn get(&self, key: &PodKey) -> Option<&PodView> {
        self.views.get(key).map(|view| &**view)
    }

    pub(crate) fn get_mut(&mut self, key: &PodKey) -> Option<&mut PodView> {
        self.views.get_mut(key).map(Arc::make_mut)
    }

    pub(crate) fn insert(&mut self, key: PodKey, pod: PodView) {
        self.remove(&key);
        if let Some(described_by) = &pod.described_by {
            self.groups.want(described_by.group.kind);
            let gangs = self.described.entry(described_by.group.clone()).or_default();
            *gangs.entry(pod.gang.clone()).or_default() += 1;
        }
        Arc::make_mut(self.gangs.entry(pod.gang.clone()).or_default()).insert(key.clone());
        self.views.insert(key, Arc::new(pod));
    }

    /// The gang that the pod was in.
    pub(crate) fn remove(&mut self, key: &PodKey) -> Option<GangKey> {
        let PodView { gang, described_by, .. } = Arc::unwrap_or_clone(self.views.remove(key)?);
        if let Some(by) = described_by
            && let Some(gangs) = self.described.get_mut(&by.group)
        {
            let pods = gangs.get(&gang).map_or(0, |pods| pods - 1);
            if pods == 0 {
                gangs.remove(&gang);
            } else {
                gangs.insert(gang.clone(), pods);
            }
            if gangs.is_empty() {
                self.described.remove(&by.group);
            }
        }
        if let Some(members) = self.gangs.get_mut(&gang).map(Arc::make_mut) {
            members.remove(key);
            if members.is_empty() {
                self.gangs.remove(&gang);
            }
        }
        Some(gang)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&PodKey, &PodView)> {
        self.views.iter().map(|(key, view)| (key, &**view))
    }

    /// The pods of a gang.
    pub(crate) fn of<'a>(&'a self, gang: &GangKey) -> impl Iterator<Item = (&'a PodKey, &'a PodView)> {
        let keys = self.gangs.get(gang).into_iter().flat_map(|keys| keys.iter());
        keys.filter_map(|key| Some((key, &**self.views.get(key)?)))
    }

    /// How many pods of a gang are in which state.
    pub(crate) fn census(&self, gang: &GangKey) -> Census {
        let mut census = Census::default();
        for (_, pod) in self.of(gang) {
            match pod.state {
                State::Waiting => census.waiting += 1,
                State::Binding(_) => census.binding += 1,
                State::Placed(_) => census.placed += 1,
                State::Leaving => census.leaving += 1,
            }
        }
        census
    }

    /// The object of another system that describes the gang, with the fewest of its pods that start; nothing when
    /// the pods themselves say all.
    pub(super) fn described(&self, gang: &GangKey) -> Option<Result<(&ForeignGroup, usize), Held>> {
        let described_by = self.of(gang).find_map(|(_, pod)| pod.described_by.as_ref())?;
        Some(self.groups.find(described_by))
    }

    /// Gangs that an object describes.
    pub(super) fn described_by(&self, group: &GroupKey) -> impl Iterator<Item = &GangKey> {
        self.described.get(group).into_iter().flat_map(BTreeMap::keys)
    }

    /// Gangs that objects of a kind describe.
    pub(super) fn described_by_kind(&self, kind: GroupKind) -> impl Iterator<Item = &GangKey> {
        self.described.iter().filter(move |(group, _)| group.kind == kind).flat_map(|(_, gangs)| gangs.keys())
    }

    /// The gang as the ledger plans it: its waiting pods in rank order, and where the others are.
    pub(crate) fn gang(&self, key: &GangKey) -> Gang {
        let mut gang = Gang { namespace: key.namespace.clone(), name: key.name.clone(), ..Gang::default() };
        for (_, pod) in self.of(key) {
            gang.min_available = gang.min_available.max(pod.min_available);
            gang.spares = gang.spares.max(pod.spares);
            match &pod.state {
                State::Waiting => gang.waiting.push(pod.member.clone()),
                State::Binding(node) | State::Placed(node) => gang.placed_on.push(node.clone()),
                State::Leaving => {}
            }
            if gang.closeness == Closeness::default() {
                gang.closeness = pod.closeness.clone();
            }
        }
        if let Some(Ok((group, least))) = self.described(key) {
            gang.min_available = gang.min_available.max(least);
            if gang.closeness == Closeness::default() {
                gang.closeness = group.closeness.clone();
            }
        }
        gang.waiting.sort_by(|left, right| (left.rank, &left.name).cmp(&(right.rank, &right.name)));
        gang
    }
}
