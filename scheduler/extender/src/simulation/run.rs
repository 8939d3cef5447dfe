//! One schedule: a small cluster, some gangs, and everything that can go wrong, in virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use muster_scheduler_core::{Gang, Ledger, PodKey};

use super::cluster::{Change, Cluster, KINDS, SimNode, SimPod, Watch};
use super::kube_scheduler::{FLUSH, Habits, KubeScheduler, TIMEOUT};
use super::random::Random;
use super::subject::{Action, ApiOutcome, ApiRequest, Call, Reply, Subject, ledger_member, ledger_node};
use crate::core::{BindOutcome, Time, WriteOutcome};
use crate::plans::Plans;

/// Until when things go wrong, in milliseconds.
const HORIZON: i64 = 12_000;
/// When everything must have come to rest.
const END: i64 = 60_000;
/// How long a restart may take to bring everything to rest.
const RECOVERY: i64 = 45_000;
/// How long a request may be under way after its sender died; shorter than what a restart waits.
const IN_FLIGHT: i64 = 1_500;

/// What happens next.
#[derive(Debug)]
enum Event {
    Deliver(usize, u64),
    Relist(usize, u64),
    Tick(u64),
    Work(u64, u64),
    Land(u64, u64, ApiRequest),
    Outcome(u64, u64, ApiOutcome),
    Arrive(u64, Call),
    Answer(u64, Option<Reply>),
    Wake,
    Flush,
    Kill,
    Restart,
    LoseNode,
    NodeBack(SimNode),
    DeletePod(PodKey, String, bool),
    Create(Box<SimPod>),
    FinishGang,
    BreakWatch,
}

/// What one schedule showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Broken promises.
    pub violations: Vec<String>,
    /// Events.
    pub steps: u64,
    /// Restarts of the process under test.
    pub kills: u64,
    /// Bindings that landed.
    pub bindings: u64,
    /// Filter and prioritize calls.
    pub calls: u64,
    /// Pods that wait in the end, with their reasons.
    pub explained: u64,
}

/// How a schedule is disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbance {
    /// Everything, by chance.
    Everything,
    /// Nothing but one kill, after this many events.
    KillAt(u64),
    /// Nothing.
    Nothing,
}

pub(super) struct Run<S> {
    random: Random,
    disturbance: Disturbance,
    now: i64,
    queue: BinaryHeap<Reverse<(i64, u64)>>,
    events: BTreeMap<u64, Event>,
    order: u64,
    cluster: Cluster,
    scheduler: Option<KubeScheduler>,
    subject: Option<S>,
    incarnation: u64,
    watches: [Watch; KINDS],
    synced: bool,
    open_calls: BTreeSet<u64>,
    in_flight: u64,
    uids: u64,
    end: i64,
    /// Gangs that lost a pod or a place through no fault of the process.
    hurt: BTreeSet<String>,
    trace: Option<Vec<String>>,
    outcome: Outcome,
}

impl<S: Subject> Run<S> {
    pub(super) fn new(seed: u64, disturbance: Disturbance, extender: bool, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let habits = Habits { samples: random.chance(30), simulates: random.chance(30) };
        let mut run = Self {
            disturbance,
            now: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            order: 0,
            cluster: Cluster::default(),
            scheduler: extender.then(|| KubeScheduler::new(habits)),
            subject: None,
            incarnation: 0,
            watches: Default::default(),
            synced: false,
            open_calls: BTreeSet::new(),
            in_flight: 0,
            uids: 0,
            end: END,
            hurt: BTreeSet::new(),
            trace: traced.then(Vec::new),
            outcome: Outcome::default(),
            random: Random::new(seed ^ 0x5EED),
        };
        run.furnish(&mut random);
        run
    }

    /// Nodes, gangs, and what will go wrong.
    fn furnish(&mut self, random: &mut Random) {
        for index in 0..random.between(2, 5) {
            let node = SimNode {
                name: format!("n{index}"),
                rack: random.between(0, 1) as u32,
                gpus: random.between(1, 4) as u32,
                ready: true,
            };
            self.cluster.change(Change::Node(node));
        }
        for gang in 0..random.between(1, 4) {
            let size = random.between(1, 4);
            let least = if random.chance(70) { size } else { random.between(1, size) };
            let gpus = random.between(1, 2) as u32;
            let alone = random.chance(25);
            let at = random.between(0, 3_000);
            for rank in 0..size {
                let pod = SimPod {
                    key: PodKey::new("d", format!("g{gang}-{rank}")),
                    uid: String::new(),
                    gang: (!alone).then(|| (format!("g{gang}"), least as usize)),
                    rank: rank as u32,
                    gpus,
                    created: 0,
                    node: None,
                    gpu_indices: Vec::new(),
                };
                let apart = random.between(0, 400);
                self.at(at + apart, Event::Create(Box::new(pod)));
            }
        }
        if self.disturbance == Disturbance::Everything {
            type Fault = (i64, i64, fn() -> Event);
            let faults: [Fault; 4] = [
                (3, 60, || Event::Kill),
                (1, 50, || Event::LoseNode),
                (1, 40, || Event::FinishGang),
                (3, 50, || Event::BreakWatch),
            ];
            for (most, percent, event) in faults {
                for _ in 0..most {
                    if random.chance(percent) {
                        let at = random.between(100, HORIZON);
                        self.at(at, event());
                    }
                }
            }
        }
        self.at(0, Event::Restart);
        self.at(FLUSH, Event::Flush);
    }

    fn at(&mut self, time: i64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((time, self.order)));
        self.events.insert(self.order, event);
    }

    fn after(&mut self, least: i64, most: i64, event: Event) {
        let delay = self.random.between(least, most);
        self.at(self.now + delay, event);
    }

    /// Whether this goes wrong now.
    fn goes_wrong(&mut self, percent: i64) -> bool {
        self.disturbance == Disturbance::Everything && self.now < HORIZON && self.random.chance(percent)
    }

    /// Runs until everything is at rest.
    pub(super) fn finish(mut self) -> (Outcome, Vec<String>) {
        while let Some(Reverse((time, order))) = self.queue.pop() {
            self.now = time;
            let Some(event) = self.events.remove(&order) else { continue };
            self.outcome.steps += 1;
            if let Some(trace) = &mut self.trace {
                trace.push(format!("{time:>6} {event:?}"));
            }
            self.happen(event);
            self.flush();
            if self.disturbance == Disturbance::KillAt(self.outcome.steps) {
                self.kill();
            }
            if !self.cluster.violations.is_empty() || time > self.end || self.at_rest() {
                break;
            }
        }
        if self.cluster.violations.is_empty() {
            self.check_rest();
        }
        self.outcome.violations = std::mem::take(&mut self.cluster.violations);
        self.outcome.calls = self.scheduler.as_ref().map_or(0, |scheduler| scheduler.calls);
        (self.outcome, self.trace.unwrap_or_default())
    }

    /// Everything is bound and nothing is under way.
    fn at_rest(&self) -> bool {
        self.now > HORIZON + 2_000
            && self.synced
            && self.subject.is_some()
            && self.in_flight == 0
            && self.cluster.pods.values().all(|pod| pod.node.is_some())
            && self.scheduler.as_ref().is_none_or(KubeScheduler::idle)
    }

    fn happen(&mut self, event: Event) {
        let now = Time(self.now);
        match event {
            Event::Deliver(kind, incarnation) if incarnation == self.incarnation => {
                if let (Some(change), Some(subject)) =
                    (self.watches[kind].next(&self.cluster, kind), self.subject.as_mut())
                {
                    subject.observe(now, &change);
                }
            }
            Event::Relist(kind, incarnation) if incarnation == self.incarnation => self.relist(kind),
            Event::Tick(incarnation) if incarnation == self.incarnation => {
                if let Some(subject) = &mut self.subject {
                    subject.tick(now);
                    self.at(self.now + 500, Event::Tick(incarnation));
                }
            }
            Event::Work(incarnation, work) if incarnation == self.incarnation => {
                if let Some(subject) = &mut self.subject {
                    subject.work(now, work);
                }
            }
            Event::Outcome(incarnation, request, outcome) if incarnation == self.incarnation => {
                if let Some(subject) = &mut self.subject {
                    subject.outcome(now, request, outcome);
                }
            }
            Event::Deliver(..)
            | Event::Relist(..)
            | Event::Tick(_)
            | Event::Work(..)
            | Event::Outcome(..) => {}
            Event::Land(incarnation, id, request) => self.land(incarnation, id, &request),
            Event::Arrive(ticket, call) => match &mut self.subject {
                Some(subject) => {
                    self.open_calls.insert(ticket);
                    let deadline = if matches!(call, Call::Bind { .. }) { 4_000 } else { 45 };
                    subject.call(now, ticket, call);
                    let incarnation = self.incarnation;
                    // Calls that wait are looked at again when their time is over.
                    self.at(self.now + deadline, Event::Work(incarnation, u64::MAX));
                }
                None => self.at(self.now + 1, Event::Answer(ticket, Some(Reply::Error("refused".into())))),
            },
            Event::Answer(ticket, reply) => {
                if let Some(scheduler) = &mut self.scheduler
                    && let Some((ticket, call)) = scheduler.answer(self.now, ticket, reply, &mut self.random)
                {
                    self.call(ticket, call);
                }
                self.wake();
            }
            Event::Wake => self.wake(),
            Event::Flush => {
                if let Some(scheduler) = &mut self.scheduler {
                    scheduler.event(self.now, &self.cluster);
                }
                self.at(self.now + FLUSH, Event::Flush);
                self.wake();
            }
            Event::Kill => self.kill(),
            Event::Restart => self.restart(),
            Event::LoseNode => self.lose_node(),
            Event::NodeBack(node) => self.change(Change::Node(node)),
            Event::DeletePod(key, uid, again) => self.delete_pod(&key, &uid, again),
            Event::Create(pod) => {
                self.uids += 1;
                let uid = format!("{}#{}", pod.key.name, self.uids);
                self.change(Change::Pod(SimPod {
                    uid,
                    created: self.now,
                    node: None,
                    gpu_indices: Vec::new(),
                    ..*pod
                }));
            }
            Event::FinishGang => {
                let bound: Vec<SimPod> =
                    self.cluster.pods.values().filter(|pod| pod.node.is_some()).cloned().collect();
                if let Some(of) = self.random.pick(&bound).cloned() {
                    let own =
                        |pod: &&SimPod| pod.key == of.key || (pod.gang.is_some() && pod.gang == of.gang);
                    let going: Vec<SimPod> = self.cluster.pods.values().filter(own).cloned().collect();
                    for pod in going {
                        self.after(0, 300, Event::DeletePod(pod.key, pod.uid, false));
                    }
                }
            }
            Event::BreakWatch => {
                let kind = self.random.between(0, KINDS as i64 - 1) as usize;
                if self.watches[kind].open {
                    self.watches[kind].open = false;
                    let incarnation = self.incarnation;
                    self.after(100, 4_000, Event::Relist(kind, incarnation));
                }
            }
        }
    }

    /// Carries out what the process wants.
    fn flush(&mut self) {
        let actions = self.subject.as_mut().map(Subject::actions).unwrap_or_default();
        let incarnation = self.incarnation;
        for action in actions {
            match action {
                Action::Request(id, request) => {
                    self.in_flight += 1;
                    if let ApiRequest::Bind(bind) = &request {
                        self.cluster.check_whole(bind, &self.watches[1]);
                    }
                    let slow = if self.goes_wrong(10) { IN_FLIGHT } else { 30 };
                    self.after(1, slow, Event::Land(incarnation, id, request));
                }
                Action::Reply(ticket, reply) => {
                    self.open_calls.remove(&ticket);
                    if self.goes_wrong(3) {
                        // Lost on the way: kube-scheduler's time runs out.
                        continue;
                    }
                    self.after(1, 5, Event::Answer(ticket, Some(reply)));
                }
                Action::Work(work) => {
                    let slow = if self.goes_wrong(10) { 200 } else { 3 };
                    self.after(0, slow, Event::Work(incarnation, work));
                }
            }
        }
    }

    fn call(&mut self, ticket: u64, call: Call) {
        if self.goes_wrong(5) {
            // Sent twice; the first answer counts.
            self.after(1, 500, Event::Arrive(ticket, call.clone()));
        }
        if !self.goes_wrong(2) {
            let slow = if self.goes_wrong(5) { 1_000 } else { 5 };
            self.after(1, slow, Event::Arrive(ticket, call));
        }
        self.at(self.now + TIMEOUT, Event::Answer(ticket, None));
    }

    fn wake(&mut self) {
        let Some(scheduler) = &mut self.scheduler else { return };
        let (call, later) = scheduler.start(self.now, &self.cluster, &mut self.random);
        if let Some((ticket, call)) = call {
            self.call(ticket, call);
        } else if let Some(later) = later {
            self.at(later, Event::Wake);
        }
    }

    fn change(&mut self, change: Change) {
        let kind = self.cluster.change(change);
        self.changed(kind);
    }

    fn changed(&mut self, kind: usize) {
        let slow = if self.goes_wrong(10) { 1_000 } else { 20 };
        let incarnation = self.incarnation;
        self.after(1, slow, Event::Deliver(kind, incarnation));
        if kind < 2 {
            if let Some(scheduler) = &mut self.scheduler {
                scheduler.event(self.now, &self.cluster);
            }
            self.at(self.now + 1, Event::Wake);
        }
    }

    fn relist(&mut self, kind: usize) {
        let Some(subject) = &mut self.subject else { return };
        for change in self.watches[kind].relist(&self.cluster, kind) {
            subject.observe(Time(self.now), &change);
        }
        if !self.synced && self.watches.iter().all(|watch| watch.open) {
            self.synced = true;
            subject.synced(Time(self.now));
            self.check_recovered();
        }
    }

    fn land(&mut self, incarnation: u64, id: u64, request: &ApiRequest) {
        self.in_flight -= 1;
        let dead = incarnation != self.incarnation;
        let lost = |why: &str| match request {
            ApiRequest::Write(_) | ApiRequest::Overwrite(_) => {
                ApiOutcome::Write(WriteOutcome::Unknown(why.into()))
            }
            ApiRequest::Bind(_) | ApiRequest::Look(_) => ApiOutcome::Bind(BindOutcome::Unknown(why.into())),
            ApiRequest::MarkBound(..) | ApiRequest::Remove(..) => ApiOutcome::Other,
        };
        if dead && self.random.chance(50) {
            return;
        }
        if self.goes_wrong(4) {
            let outcome = match request {
                ApiRequest::Write(_) | ApiRequest::Overwrite(_) => {
                    ApiOutcome::Write(WriteOutcome::Failed("500".into()))
                }
                ApiRequest::Bind(_) => ApiOutcome::Bind(BindOutcome::Failed("500".into())),
                ApiRequest::Look(_) => ApiOutcome::Bind(BindOutcome::Unknown("500".into())),
                ApiRequest::MarkBound(..) | ApiRequest::Remove(..) => ApiOutcome::Other,
            };
            return self.after(1, 20, Event::Outcome(incarnation, id, outcome));
        }
        if self.goes_wrong(4) {
            return self.after(500, 1_000, Event::Outcome(incarnation, id, lost("lost")));
        }
        if let ApiRequest::Write(write) | ApiRequest::Overwrite(write) = request {
            let ready = |node: &String| self.cluster.nodes.get(node).is_some_and(|node| node.ready);
            if write.members.iter().any(|place| !ready(&place.node)) {
                self.hurt.insert(write.gang.name.clone());
            }
        }
        let (outcome, kind) = self.cluster.land(request);
        if outcome == ApiOutcome::Bind(BindOutcome::Bound) {
            self.outcome.bindings += 1;
        }
        if let Some(kind) = kind {
            self.changed(kind);
        }
        if self.goes_wrong(4) {
            return self.after(500, 1_000, Event::Outcome(incarnation, id, lost("no answer")));
        }
        let slow = if self.goes_wrong(10) { 600 } else { 20 };
        self.after(1, slow, Event::Outcome(incarnation, id, outcome));
    }

    fn kill(&mut self) {
        if self.subject.take().is_none() {
            return;
        }
        self.outcome.kills += 1;
        self.end = self.end.max(self.now + RECOVERY);
        self.incarnation += 1;
        for ticket in std::mem::take(&mut self.open_calls) {
            self.after(1, 20, Event::Answer(ticket, Some(Reply::Error("connection reset".into()))));
        }
        self.after(0, 3_000, Event::Restart);
    }

    fn restart(&mut self) {
        if self.subject.is_some() {
            return;
        }
        self.subject = Some(S::start());
        self.watches = Default::default();
        self.synced = false;
        let incarnation = self.incarnation;
        for kind in 0..KINDS {
            self.after(1, 300, Event::Relist(kind, incarnation));
        }
        self.at(self.now + 500, Event::Tick(incarnation));
    }

    fn lose_node(&mut self) {
        let ready: Vec<SimNode> = self.cluster.nodes.values().filter(|node| node.ready).cloned().collect();
        let Some(node) = self.random.pick(&ready).cloned() else { return };
        if self.random.chance(50) {
            self.change(Change::Node(SimNode { ready: false, ..node.clone() }));
        } else {
            self.change(Change::NodeGone(node.name.clone()));
        }
        let places = self.cluster.reservations.values();
        let reserved = places.filter(|seen| seen.members.iter().any(|place| place.node == node.name));
        self.hurt.extend(reserved.map(|seen| seen.gang.name.clone()));
        let on_node: Vec<SimPod> =
            self.cluster.pods.values().filter(|pod| pod.node.as_ref() == Some(&node.name)).cloned().collect();
        for pod in on_node {
            self.after(300, 2_000, Event::DeletePod(pod.key, pod.uid, true));
        }
        if self.random.chance(60) {
            self.after(2_500, 8_000, Event::NodeBack(node));
        }
    }

    fn delete_pod(&mut self, key: &PodKey, uid: &str, again: bool) {
        let Some(pod) = self.cluster.pods.get(key).filter(|pod| pod.uid == uid).cloned() else { return };
        self.change(Change::PodGone(key.clone(), uid.to_owned()));
        self.hurt.extend(pod.gang.as_ref().map(|(gang, _)| gang.clone()));
        if again {
            let mut pod = pod;
            if self.random.chance(30) {
                // Some controllers give the successor another name.
                pod.key.name = format!("{}x", pod.key.name);
            }
            self.after(10, 800, Event::Create(Box::new(pod)));
        }
    }

    /// After a restart every place that is written down for a waiting pod is held, if it still can be.
    fn check_recovered(&mut self) {
        let Some(subject) = &self.subject else { return };
        let mut lost = Vec::new();
        for seen in self.cluster.reservations.values() {
            for place in &seen.members {
                let pod = PodKey::new(&seen.gang.namespace, &place.pod);
                let waits =
                    self.cluster.pods.get(&pod).is_some_and(|pod| pod.uid == place.uid && pod.node.is_none());
                let Some(node) = self.cluster.nodes.get(&place.node).filter(|node| node.ready && waits)
                else {
                    continue;
                };
                let slots: Vec<u32> = self
                    .cluster
                    .pods
                    .values()
                    .filter(|pod| pod.node.as_ref() == Some(&node.name))
                    .flat_map(|pod| pod.gpu_indices.clone())
                    .collect();
                let free = place.gpu_indices.iter().all(|slot| *slot < node.gpus && !slots.contains(slot));
                // What the watches have not told yet cannot be known.
                let told = self.watches.iter().all(|watch| watch.open);
                if free && told && subject.holds(&place.uid).as_ref() != Some(&place.node) {
                    lost.push(format!("the place of {pod} on {} was lost by the restart", place.node));
                }
            }
        }
        if !lost.is_empty() && self.lists_agree() {
            self.cluster.violations.extend(lost);
        }
    }

    /// Whether the lists, made one after the other, show the cluster as it is now.
    fn lists_agree(&self) -> bool {
        (0..KINDS).all(|kind| self.watches[kind].told_all(&self.cluster, kind))
    }

    /// At rest no gang is partial, and whoever waits could not start and has a reason.
    fn check_rest(&mut self) {
        let Some(subject) = &self.subject else {
            return self.cluster.violations.push("the process did not come back".to_owned());
        };
        let mut ledger = Ledger::default();
        for node in self.cluster.nodes.values() {
            Plans::set_node(&mut ledger, ledger_node(node));
        }
        let mut gangs: BTreeMap<String, Vec<&SimPod>> = BTreeMap::new();
        for pod in self.cluster.pods.values() {
            let own = format!("pod {}", pod.key.name);
            gangs.entry(pod.gang.as_ref().map_or(own, |(gang, _)| gang.clone())).or_default().push(pod);
            let held = pod.node.clone().or_else(|| subject.holds(&pod.uid));
            if let Some(node) = held {
                let assignment = Plans::assignment(&ledger, &ledger_member(pod), &node, &pod.gpu_indices);
                Plans::record(&mut ledger, pod.key.clone(), assignment);
            }
        }
        let mut broken = Vec::new();
        for (name, pods) in &gangs {
            let waiting: Vec<&&SimPod> = pods.iter().filter(|pod| pod.node.is_none()).collect();
            let bound = pods.len() - waiting.len();
            let Some(first) = waiting.first() else { continue };
            let least = first.gang.as_ref().map_or(1, |(_, least)| *least);
            let reason = subject.explained(first);
            let ask = Gang {
                namespace: first.key.namespace.clone(),
                name: name.clone(),
                min_available: least,
                ..Gang::default()
            };
            let members = waiting.iter().map(|pod| ledger_member(pod)).collect();
            let placed_on = pods.iter().filter_map(|pod| pod.node.clone()).collect();
            let placeable = Ledger::place(&mut ledger, &Gang { waiting: members, placed_on, ..ask }).is_ok();
            let held = waiting.iter().filter(|pod| subject.holds(&pod.uid).is_some()).count();
            self.outcome.explained += waiting.len() as u64;
            if reason.is_none() {
                broken.push(format!(
                    "gang {name}: {bound} bound, {} wait without a reason ({held} held)",
                    waiting.len()
                ));
            } else if placeable {
                broken
                    .push(format!("gang {name}: waits though there is room: {}", reason.unwrap_or_default()));
            } else if bound > 0 && bound < least && !self.hurt.contains(name) {
                broken.push(format!("gang {name} is partial: {bound} of {least} are bound"));
            }
        }
        self.cluster.violations.extend(broken);
    }
}
