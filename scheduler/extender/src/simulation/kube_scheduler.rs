//! A model of kube-scheduler as an extender sees it: one scheduling cycle at a time, bindings beside it, filter
//! before prioritize, prioritize only when there is a choice, five seconds of patience, refused pods tried again
//! after any cluster event, failed ones after a back-off. It never says that it gave a pod up.

use std::collections::{BTreeMap, VecDeque};

use muster_scheduler_core::PodKey;

use super::cluster::{Cluster, SimPod};
use super::random::Random;
use super::subject::{Call, Reply};

/// How long an extender may take, in milliseconds.
pub const TIMEOUT: i64 = 5_000;
const BACK_OFF: (i64, i64) = (1_000, 3_000);
/// Refused pods are tried again after this long even when nothing happens.
pub const FLUSH: i64 = 10_000;

/// How this scheduler is set up.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// Offers only some of the nodes (`percentageOfNodesToScore` below 100).
    pub samples: bool,
    /// Tries each rack in a simulation before the real attempt (the native gang of 1.36).
    pub simulates: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// To be tried from this time on.
    Active(i64),
    /// Refused; waits for an event.
    Refused,
    /// In the cycle.
    Scheduling,
    /// In a binding goroutine.
    Binding(String),
    Done,
}

#[derive(Debug)]
struct Cycle {
    pod: PodKey,
    uid: String,
    ticket: u64,
    /// What to ask; the last one is the real attempt.
    attempts: VecDeque<Vec<String>>,
    /// Nodes that passed, while prioritize is asked.
    passed: Vec<String>,
}

/// The scheduler.
#[derive(Debug)]
pub struct KubeScheduler {
    habits: Habits,
    phases: BTreeMap<PodKey, (String, Phase)>,
    cycle: Option<Cycle>,
    bindings: BTreeMap<u64, (PodKey, String)>,
    next: u64,
    /// Filter and prioritize calls so far.
    pub calls: u64,
}

impl KubeScheduler {
    /// With these habits.
    pub fn new(habits: Habits) -> Self {
        Self { habits, phases: BTreeMap::new(), cycle: None, bindings: BTreeMap::new(), next: 0, calls: 0 }
    }

    /// Something happened in the cluster: refused pods are tried again.
    pub fn event(&mut self, now: i64, cluster: &Cluster) {
        self.phases.retain(|key, (uid, _)| cluster.pods.get(key).is_some_and(|pod| pod.uid == *uid));
        for pod in cluster.pods.values() {
            let entry = self.phases.entry(pod.key.clone()).or_insert((pod.uid.clone(), Phase::Active(now)));
            if pod.node.is_some() {
                entry.1 = Phase::Done;
            } else if entry.1 == Phase::Refused {
                entry.1 = Phase::Active(now);
            }
        }
    }

    fn ticket(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Nodes with room for the pod, counting what is being bound.
    fn feasible(&self, cluster: &Cluster, pod: &SimPod) -> Vec<String> {
        let assumed = |node: &str| -> u32 {
            let wanted = |key: &PodKey| cluster.pods.get(key).map_or(0, |pod| pod.gpus);
            let bound: u32 = cluster
                .pods
                .values()
                .filter(|other| other.node.as_deref() == Some(node))
                .map(|other| other.gpus)
                .sum();
            let binding: u32 = self
                .phases
                .iter()
                .filter(|(_, (_, phase))| *phase == Phase::Binding(node.to_owned()))
                .filter(|(key, _)| cluster.pods.get(key).is_some_and(|pod| pod.node.is_none()))
                .map(|(key, _)| wanted(key))
                .sum();
            bound + binding
        };
        cluster
            .nodes
            .values()
            .filter(|node| node.ready && assumed(&node.name) + pod.gpus <= node.gpus)
            .map(|node| node.name.clone())
            .collect()
    }

    /// Starts a cycle when there is none: the call to make, and when to look again otherwise.
    pub fn start(
        &mut self,
        now: i64,
        cluster: &Cluster,
        random: &mut Random,
    ) -> (Option<(u64, Call)>, Option<i64>) {
        if self.cycle.is_some() {
            return (None, None);
        }
        loop {
            let ready: Vec<PodKey> = self
                .phases
                .iter()
                .filter(|(_, (_, phase))| matches!(phase, Phase::Active(from) if *from <= now))
                .map(|(key, _)| key.clone())
                .collect();
            let Some(key) = random.pick(&ready).cloned() else {
                let later = self.phases.values().filter_map(|(_, phase)| match phase {
                    Phase::Active(from) => Some(*from),
                    _ => None,
                });
                return (None, later.min());
            };
            let Some(pod) = cluster.pods.get(&key).filter(|pod| pod.node.is_none()) else {
                self.phases.remove(&key);
                continue;
            };
            let mut offered = self.feasible(cluster, pod);
            if self.habits.samples && offered.len() > 1 && random.chance(30) {
                let left_out = random.between(0, offered.len() as i64 - 1) as usize;
                offered.remove(left_out);
            }
            if offered.is_empty() {
                self.set(&key, Phase::Refused);
                continue;
            }
            let mut attempts = VecDeque::new();
            if self.habits.simulates && random.chance(50) {
                let racks: BTreeMap<u32, Vec<String>> =
                    offered.iter().fold(BTreeMap::new(), |mut racks, name| {
                        if let Some(node) = cluster.nodes.get(name) {
                            racks.entry(node.rack).or_insert_with(Vec::new).push(name.clone());
                        }
                        racks
                    });
                attempts.extend(racks.into_values());
            }
            attempts.push_back(offered);
            self.set(&key, Phase::Scheduling);
            let (ticket, uid) = (self.ticket(), pod.uid.clone());
            self.cycle = Some(Cycle { pod: key, uid, ticket, attempts, passed: Vec::new() });
            return (self.filter_call(), None);
        }
    }

    fn filter_call(&mut self) -> Option<(u64, Call)> {
        let ticket = self.ticket();
        self.calls += 1;
        let cycle = self.cycle.as_mut()?;
        cycle.ticket = ticket;
        let offered = cycle.attempts.front()?.clone();
        Some((ticket, Call::Filter { pod: cycle.pod.clone(), uid: cycle.uid.clone(), offered }))
    }

    fn set(&mut self, key: &PodKey, phase: Phase) {
        if let Some(entry) = self.phases.get_mut(key) {
            entry.1 = phase;
        }
    }

    /// An answer, or `None` for none in time: the next call to make. Late answers are not for anything.
    pub fn answer(
        &mut self,
        now: i64,
        ticket: u64,
        reply: Option<Reply>,
        random: &mut Random,
    ) -> Option<(u64, Call)> {
        if let Some((pod, uid)) = self.bindings.get(&ticket).cloned() {
            self.bindings.remove(&ticket);
            if self.phases.get(&pod).is_some_and(|(known, phase)| *known == uid && *phase != Phase::Done)
                && reply != Some(Reply::Bound)
            {
                self.set(&pod, Phase::Active(now + random.between(BACK_OFF.0, BACK_OFF.1)));
            }
            return None;
        }
        let cycle = self.cycle.as_mut().filter(|cycle| cycle.ticket == ticket)?;
        let node = match reply {
            Some(Reply::Nodes(nodes)) if cycle.attempts.len() > 1 => {
                drop(nodes);
                cycle.attempts.pop_front();
                return self.filter_call();
            }
            Some(Reply::Refused(_) | Reply::Error(_)) | None if cycle.attempts.len() > 1 => {
                cycle.attempts.pop_front();
                return self.filter_call();
            }
            Some(Reply::Nodes(nodes)) if nodes.len() > 1 => {
                cycle.passed.clone_from(&nodes);
                let (pod, uid) = (cycle.pod.clone(), cycle.uid.clone());
                let ticket = self.ticket();
                self.calls += 1;
                self.cycle.as_mut()?.ticket = ticket;
                return Some((ticket, Call::Prioritize { pod, uid, offered: nodes }));
            }
            // With one node left there is nothing to prioritize.
            Some(Reply::Nodes(nodes)) => nodes.first().cloned(),
            // Errors of prioritize are ignored.
            Some(Reply::Preferred(best)) => best.or_else(|| cycle.passed.first().cloned()),
            Some(Reply::Error(_)) | None if !cycle.passed.is_empty() => cycle.passed.first().cloned(),
            Some(Reply::Refused(_)) => None,
            Some(Reply::Error(_) | Reply::Bound) | None => {
                let pod = cycle.pod.clone();
                self.cycle = None;
                self.set(&pod, Phase::Active(now + random.between(BACK_OFF.0, BACK_OFF.1)));
                return None;
            }
        };
        let (pod, uid) = (cycle.pod.clone(), cycle.uid.clone());
        self.cycle = None;
        let Some(node) = node else {
            self.set(&pod, Phase::Refused);
            return None;
        };
        self.set(&pod, Phase::Binding(node.clone()));
        let ticket = self.ticket();
        self.bindings.insert(ticket, (pod.clone(), uid.clone()));
        Some((ticket, Call::Bind { pod, uid, node }))
    }

    /// Whether nothing is under way.
    pub fn idle(&self) -> bool {
        self.cycle.is_none() && self.bindings.is_empty()
    }
}
