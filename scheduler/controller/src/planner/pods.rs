//! What the planner knows of each pod and of the gang that it belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use muster_scheduler_core::node::Requirement;
use muster_scheduler_core::{ClaimKey, Closeness, Ended, Gang, Member, PodKey};
use muster_scheduler_queue::job::Restart;
use muster_scheduler_queue::time::Milliseconds;
use muster_scheduler_topology::GroupShape;

use super::decision::Opening;
use super::groups::Groups;
use super::standing::Held;
use crate::objects::{ForeignGroup, GroupKey, GroupKind, GroupPart, PodClaim, PodFacts, Problem};

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
    /// What is free is farther apart than it need be.
    Nearer,
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
    pub(crate) nearness: Option<Milliseconds>,
    pub(crate) closeness: Closeness,
    pub(crate) spares: u32,
    pub(crate) shape: Option<GroupShape>,
    pub(crate) all_reduce: Option<u64>,
    /// Seconds of a step, as its job has measured them.
    pub(crate) step: Option<f64>,
    pub(crate) owner: Option<OwnerReference>,
    /// The scheduler that it names.
    pub(crate) scheduler_name: String,
    /// What it asks for and cannot have as it is written.
    pub(crate) problems: Vec<Problem>,
    /// Fields that restrict where it may go, and that no plan looks at.
    pub(crate) unheeded: Vec<&'static str>,
    /// Its claims of devices. What they come to is in `member`.
    pub(crate) claims: Vec<PodClaim>,
    /// Where it may go itself, before its claims bind it further.
    pub(crate) own_affinity: Vec<Vec<Requirement>>,
    /// Why its claims keep it from being planned.
    pub(crate) claims_held: Option<Held>,
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
            own_affinity: facts.member.required_affinity.clone(),
            claims_held: (!facts.claims.is_empty())
                .then(|| Held::Missing("its claims have not been looked at yet".to_owned())),
            claims: facts.claims,
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
            nearness: facts.nearness,
            closeness: membership.closeness,
            spares: membership.spares,
            shape: membership.shape,
            all_reduce: membership.all_reduce,
            step: facts.step,
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

/// Leaves claims whose devices are reached from everywhere with the first of the members that share them: the others
/// can use them wherever they are.
fn carry_once(members: &mut [Member]) {
    let mut carried: BTreeSet<String> = BTreeSet::new();
    for member in members {
        member.claims.retain(|claim| !claim.anywhere || carried.insert(claim.name.clone()));
    }
}

/// The claims that a pod uses, as far as they are there.
fn used(key: &PodKey, view: &PodView) -> impl Iterator<Item = ClaimKey> {
    let names = view.claims.iter().filter_map(PodClaim::object);
    names.map(|name| ClaimKey::new(&key.namespace, name))
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
    /// Those that are done, and are in none of the other tables.
    pub(super) ended: Ended,
    /// Pods by the claims that they use.
    claimed: BTreeMap<ClaimKey, BTreeSet<PodKey>>,
    /// Pods with claims.
    claiming: BTreeSet<PodKey>,
    /// Those of them whose claims have changed since they were looked at.
    unresolved: BTreeSet<PodKey>,
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
        if !pod.claims.is_empty() {
            self.claiming.insert(key.clone());
            self.unresolved.insert(key.clone());
            for claim in used(&key, &pod) {
                self.claimed.entry(claim).or_default().insert(key.clone());
            }
        }
        self.views.insert(key, Arc::new(pod));
    }

    /// Pods that use a claim.
    pub(crate) fn users(&self, claim: &ClaimKey) -> impl Iterator<Item = &PodKey> {
        self.claimed.get(claim).into_iter().flatten()
    }

    /// Gangs of which pods use a claim.
    pub(crate) fn gangs_that_use(&self, claim: &ClaimKey) -> impl Iterator<Item = GangKey> {
        self.users(claim).filter_map(|pod| Some(self.views.get(pod)?.gang.clone()))
    }

    /// The claims of all pods are to be looked at again.
    pub(crate) fn resolve_all_claims_again(&mut self) {
        self.unresolved.clone_from(&self.claiming);
    }

    /// The pods that use a claim are to be looked at again.
    pub(crate) fn resolve_claim_again(&mut self, claim: &ClaimKey) {
        self.unresolved.extend(self.claimed.get(claim).into_iter().flatten().cloned());
    }

    /// The claims of a pod, and of those that share them, are to be looked at again.
    pub(crate) fn resolve_again(&mut self, key: &PodKey) {
        let Some(view) = self.views.get(key) else { return };
        let claims: Vec<ClaimKey> = used(key, view).collect();
        for claim in &claims {
            self.resolve_claim_again(claim);
        }
    }

    /// The claims of a gang's pods are to be looked at again.
    pub(crate) fn resolve_gang_again(&mut self, gang: &GangKey) {
        let pods = self.gangs.get(gang).into_iter().flat_map(|pods| pods.iter());
        self.unresolved.extend(pods.filter(|pod| self.claiming.contains(*pod)).cloned());
    }

    /// Pods whose claims are to be looked at.
    pub(crate) fn take_unresolved(&mut self) -> BTreeSet<PodKey> {
        std::mem::take(&mut self.unresolved)
    }

    /// The gang that the pod was in.
    pub(crate) fn remove(&mut self, key: &PodKey) -> Option<GangKey> {
        let view = self.views.remove(key)?;
        if self.claiming.remove(key) {
            self.unresolved.remove(key);
            for claim in used(key, &view) {
                if let Some(pods) = self.claimed.get_mut(&claim) {
                    pods.remove(key);
                    if pods.is_empty() {
                        self.claimed.remove(&claim);
                    }
                }
            }
        }
        let PodView { gang, described_by, .. } = Arc::unwrap_or_clone(view);
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

    /// How many pods of the gang must run together now: those that are done are not missed.
    pub(crate) fn least(&self, key: &GangKey) -> usize {
        let Some(said) = self.of(key).map(|(_, pod)| pod.min_available).max() else { return 0 };
        let done = self.done(key);
        let described = self.described(key).and_then(Result::ok).map_or(0, |(_, least)| least);
        said.max(described).saturating_sub(done).max(1)
    }

    /// How many members are done, of the controllers whose pods are there.
    fn done(&self, key: &GangKey) -> usize {
        let gang = key.into();
        if !self.ended.any_of(&gang) {
            return 0;
        }
        let owners = self.of(key).filter_map(|(_, pod)| Some(pod.owner.as_ref()?.uid.as_str()));
        let owners: BTreeSet<&str> = owners.collect();
        self.ended.count(&gang, owners)
    }

    /// The gang as the ledger plans it: its waiting pods in rank order, and where the others are.
    pub(crate) fn gang(&self, key: &GangKey) -> Gang {
        let mut gang = Gang { namespace: key.namespace.clone(), name: key.name.clone(), ..Gang::default() };
        for (_, pod) in self.of(key) {
            gang.spares = gang.spares.max(pod.spares);
            gang.shape = gang.shape.or(pod.shape);
            gang.all_reduce = gang.all_reduce.max(pod.all_reduce);
            match &pod.state {
                State::Waiting => gang.waiting.push(pod.member.clone()),
                State::Binding(node) | State::Placed(node) => gang.placed_on.push(node.clone()),
                State::Leaving => {}
            }
            if gang.closeness == Closeness::default() {
                gang.closeness = pod.closeness.clone();
            }
        }
        gang.min_available = self.least(key);
        if let Some(Ok((group, _))) = self.described(key)
            && gang.closeness == Closeness::default()
        {
            gang.closeness = group.closeness.clone();
        }
        gang.waiting.sort_by(|left, right| (left.rank, &left.name).cmp(&(right.rank, &right.name)));
        carry_once(&mut gang.waiting);
        gang
    }
}
