//! A model of the API server: objects, versions, preconditions, and watches that tell of changes in order.

use std::collections::{BTreeMap, BTreeSet};

use muster_scheduler_core::PodKey;

use super::subject::{ApiOutcome, ApiRequest};
use crate::core::{
    BindOutcome, BindPod, GangKey, ReservedPlace, SeenReservation, WriteOutcome, WriteReservation,
};

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimNode {
    /// Name.
    pub name: String,
    /// Which rack.
    pub rack: u32,
    /// GPU slots.
    pub gpus: u32,
    /// Takes pods.
    pub ready: bool,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimPod {
    /// Namespace and name.
    pub key: PodKey,
    /// Uid.
    pub uid: String,
    /// Name and least size of its gang.
    pub gang: Option<(String, usize)>,
    /// Rank in the gang.
    pub rank: u32,
    /// GPUs that it needs.
    pub gpus: u32,
    /// When it was created, in milliseconds.
    pub created: i64,
    /// Where it runs.
    pub node: Option<String>,
    /// Which GPU slots it was given.
    pub gpu_indices: Vec<u32>,
}

/// A change that a watch tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A node appeared or changed.
    Node(SimNode),
    /// A node is gone.
    NodeGone(String),
    /// A pod appeared or changed.
    Pod(SimPod),
    /// A pod is gone: name and uid.
    PodGone(PodKey, String),
    /// A reservation appeared or changed.
    Reservation(SeenReservation),
    /// A reservation is gone.
    ReservationGone(GangKey),
}

/// Nodes, pods, reservations.
pub const KINDS: usize = 3;

/// The API server's objects, and all changes by kind.
#[derive(Debug, Default)]
pub struct Cluster {
    /// Nodes by name.
    pub nodes: BTreeMap<String, SimNode>,
    /// Pods.
    pub pods: BTreeMap<PodKey, SimPod>,
    /// Reservations.
    pub reservations: BTreeMap<GangKey, SeenReservation>,
    /// All changes.
    pub logs: [Vec<Change>; KINDS],
    version: u64,
    /// Uids of all pods that were bound.
    ever_bound: BTreeSet<String>,
    /// Broken promises.
    pub violations: Vec<String>,
}

fn kind(change: &Change) -> usize {
    match change {
        Change::Node(_) | Change::NodeGone(_) => 0,
        Change::Pod(_) | Change::PodGone(..) => 1,
        Change::Reservation(_) | Change::ReservationGone(_) => 2,
    }
}

impl Cluster {
    /// Makes a change; its kind.
    pub fn change(&mut self, change: Change) -> usize {
        match change.clone() {
            Change::Node(node) => {
                self.nodes.insert(node.name.clone(), node);
            }
            Change::NodeGone(name) => {
                self.nodes.remove(&name);
            }
            Change::Pod(pod) => {
                self.pods.insert(pod.key.clone(), pod);
            }
            Change::PodGone(key, _) => {
                self.pods.remove(&key);
            }
            Change::Reservation(seen) => {
                self.reservations.insert(seen.gang.clone(), seen);
            }
            Change::ReservationGone(key) => {
                self.reservations.remove(&key);
            }
        }
        let kind = kind(&change);
        self.logs[kind].push(change);
        kind
    }

    /// Everything of a kind, as a list tells it.
    pub fn list(&self, kind: usize) -> Vec<Change> {
        match kind {
            0 => self.nodes.values().cloned().map(Change::Node).collect(),
            1 => self.pods.values().cloned().map(Change::Pod).collect(),
            _ => self.reservations.values().cloned().map(Change::Reservation).collect(),
        }
    }

    fn version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// Carries a request out: its outcome, and the kind of what changed.
    pub fn land(&mut self, request: &ApiRequest) -> (ApiOutcome, Option<usize>) {
        match request {
            ApiRequest::Write(write) => {
                let current = self.reservations.get(&write.gang);
                if current.map(|seen| &seen.resource_version) != write.replaces.as_ref() {
                    return (ApiOutcome::Write(WriteOutcome::Conflict(current.cloned())), None);
                }
                self.write(write)
            }
            ApiRequest::Overwrite(write) => self.write(write),
            ApiRequest::MarkBound(gang, epoch) => {
                let Some(mut seen) = self.reservations.get(gang).cloned().filter(|seen| seen.epoch == *epoch)
                else {
                    return (ApiOutcome::Other, None);
                };
                seen.resource_version = self.version();
                (ApiOutcome::Other, Some(self.change(Change::Reservation(seen))))
            }
            ApiRequest::Remove(gang, version) => {
                let same = self.reservations.get(gang).is_some_and(|seen| seen.resource_version == *version);
                (ApiOutcome::Other, same.then(|| self.change(Change::ReservationGone(gang.clone()))))
            }
            ApiRequest::Bind(bind) => self.bind(bind),
            ApiRequest::Look(bind) => {
                let pod = self.pods.get(&bind.pod).filter(|pod| pod.uid == bind.uid);
                let outcome = match pod.map(|pod| pod.node.clone()) {
                    None => BindOutcome::Gone,
                    Some(None) => BindOutcome::NotBound,
                    Some(Some(node)) => BindOutcome::AlreadyBound(node),
                };
                (ApiOutcome::Bind(outcome), None)
            }
        }
    }

    fn write(&mut self, write: &WriteReservation) -> (ApiOutcome, Option<usize>) {
        let resource_version = self.version();
        let seen = SeenReservation {
            gang: write.gang.clone(),
            epoch: write.epoch,
            members: write.members.clone(),
            resource_version: resource_version.clone(),
        };
        let kind = self.change(Change::Reservation(seen));
        (ApiOutcome::Write(WriteOutcome::Written(resource_version)), Some(kind))
    }

    fn bind(&mut self, bind: &BindPod) -> (ApiOutcome, Option<usize>) {
        let Some(pod) = self.pods.get(&bind.pod).filter(|pod| pod.uid == bind.uid) else {
            return (ApiOutcome::Bind(BindOutcome::Gone), None);
        };
        if let Some(node) = &pod.node {
            return (ApiOutcome::Bind(BindOutcome::AlreadyBound(node.clone())), None);
        }
        let mut pod = pod.clone();
        pod.node = Some(bind.node.clone());
        pod.gpu_indices.clone_from(&bind.gpu_indices);
        self.check_reserved(&pod, bind);
        self.ever_bound.insert(pod.uid.clone());
        let kind = self.change(Change::Pod(pod));
        self.check_room(&bind.node);
        (ApiOutcome::Bind(BindOutcome::Bound), Some(kind))
    }

    fn reserved(&self, pod: &SimPod) -> &[ReservedPlace] {
        let key = pod.gang.as_ref().map(|(gang, _)| GangKey::new(&pod.key.namespace, gang));
        key.and_then(|key| self.reservations.get(&key)).map_or(&[], |seen| &seen.members)
    }

    /// When a pod of a gang is bound, its place is written down.
    fn check_reserved(&mut self, pod: &SimPod, bind: &BindPod) {
        let own = |place: &ReservedPlace| place.uid == bind.uid && place.node == bind.node;
        if pod.gang.is_some() && !self.reserved(pod).iter().any(own) {
            let text = format!("{} was bound to {} without a durable place", pod.key, bind.node);
            self.violations.push(text);
        }
    }

    /// When the first binding of a gang is sent, places for enough of its pods are written down. Pods that were
    /// bound and whose end `told` does not know of yet count as running.
    pub fn check_whole(&mut self, bind: &BindPod, told: &Watch) {
        let Some(pod) = self.pods.get(&bind.pod).filter(|pod| pod.uid == bind.uid) else { return };
        let Some((_, least)) = &pod.gang else { return };
        let runs = |other: &SimPod| other.gang == pod.gang && self.ever_bound.contains(&other.uid);
        let started = self.pods.values().any(runs)
            || told.known.values().any(|change| matches!(change, Change::Pod(other) if runs(other)));
        let placed = self.reserved(pod).len();
        if !started && placed < *least {
            let text = format!("the binding of {} was sent with {placed} of {least} places written", pod.key);
            self.violations.push(text);
        }
    }

    /// No slot of a node is had twice.
    fn check_room(&mut self, node: &str) {
        let Some(gpus) = self.nodes.get(node).map(|node| node.gpus) else { return };
        let on_node = || self.pods.values().filter(|pod| pod.node.as_deref() == Some(node));
        let wanted: u32 = on_node().map(|pod| pod.gpus).sum();
        let mut slots: Vec<u32> = on_node().flat_map(|pod| pod.gpu_indices.iter().copied()).collect();
        let count = slots.len();
        slots.sort_unstable();
        slots.dedup();
        if wanted > gpus || slots.len() < count || slots.iter().any(|slot| *slot >= gpus) {
            let who: Vec<String> =
                on_node().map(|pod| format!("{} {:?}", pod.key.name, pod.gpu_indices)).collect();
            self.violations
                .push(format!("node {node} of {gpus} GPUs is allocated twice: {}", who.join(", ")));
        }
    }
}

/// What one client knows of one kind.
#[derive(Debug, Default)]
pub struct Watch {
    at: usize,
    /// Lists, and the watch that follows.
    pub open: bool,
    known: BTreeMap<(String, String), Change>,
}

fn identity(change: &Change) -> (String, String) {
    match change {
        Change::Node(node) => (String::new(), node.name.clone()),
        Change::NodeGone(name) => (String::new(), name.clone()),
        Change::Pod(pod) => (pod.key.namespace.clone(), pod.key.name.clone()),
        Change::PodGone(key, _) => (key.namespace.clone(), key.name.clone()),
        Change::Reservation(seen) => (seen.gang.namespace.clone(), seen.gang.name.clone()),
        Change::ReservationGone(key) => (key.namespace.clone(), key.name.clone()),
    }
}

impl Watch {
    fn note(&mut self, change: &Change) {
        let key = identity(change);
        match change {
            Change::Node(_) | Change::Pod(_) | Change::Reservation(_) => {
                self.known.insert(key, change.clone());
            }
            Change::NodeGone(_) | Change::PodGone(..) | Change::ReservationGone(_) => {
                self.known.remove(&key);
            }
        }
    }

    /// The next change that was not told yet.
    pub fn next(&mut self, cluster: &Cluster, kind: usize) -> Option<Change> {
        if !self.open {
            return None;
        }
        let change = cluster.logs[kind].get(self.at)?.clone();
        self.at += 1;
        self.note(&change);
        Some(change)
    }

    /// A list: what is there, and what is there no more.
    pub fn relist(&mut self, cluster: &Cluster, kind: usize) -> Vec<Change> {
        self.open = true;
        self.at = cluster.logs[kind].len();
        let listed = cluster.list(kind);
        let there: BTreeSet<(String, String)> = listed.iter().map(identity).collect();
        let gone =
            self.known.iter().filter(|(key, _)| !there.contains(*key)).map(|(_, change)| match change {
                Change::Node(node) => Change::NodeGone(node.name.clone()),
                Change::Pod(pod) => Change::PodGone(pod.key.clone(), pod.uid.clone()),
                Change::Reservation(seen) => Change::ReservationGone(seen.gang.clone()),
                other => other.clone(),
            });
        let changes: Vec<Change> = listed.iter().cloned().chain(gone).collect();
        for change in &changes {
            self.note(change);
        }
        changes
    }
}

impl Watch {
    /// Whether every change was told.
    pub fn told_all(&self, cluster: &Cluster, kind: usize) -> bool {
        self.at == cluster.logs[kind].len()
    }
}
