//! What is put to the test: a process that watches the cluster, may be called by kube-scheduler, and sends
//! requests to the API server.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_scheduler_core::resources::GPU_RESOURCE;
use muster_scheduler_core::{Gang, Ledger, Member, Node, PodKey, Resources};

use super::cluster::{Change, SimNode, SimPod};
use crate::core::{
    BindOutcome, BindPod, BindStep, Effect, ExtenderCore, FilterStep, GangKey, PlanJob, PodSeen, PodState,
    Time, Timing, Verdict, WriteOutcome, WriteReservation,
};
use crate::wire::{BindRequest, Offered, PodIdentity};

/// A request to the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiRequest {
    /// Write a reservation if the object still is what `replaces` says.
    Write(WriteReservation),
    /// Write a reservation whatever the object is (a forced apply).
    Overwrite(WriteReservation),
    /// Note that all of a reservation is bound.
    MarkBound(GangKey, i64),
    /// Remove a reservation of this version.
    Remove(GangKey, String),
    /// Bind a pod.
    Bind(BindPod),
    /// Read whether a pod is bound.
    Look(BindPod),
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiOutcome {
    /// Of a write.
    Write(WriteOutcome),
    /// Of a binding.
    Bind(BindOutcome),
    /// Of anything that nothing depends on.
    Other,
}

/// A call of kube-scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Which of these nodes may the pod have?
    Filter {
        /// The pod.
        pod: PodKey,
        /// Its uid.
        uid: String,
        /// The nodes.
        offered: Vec<String>,
    },
    /// How good are these nodes?
    Prioritize {
        /// The pod.
        pod: PodKey,
        /// Its uid.
        uid: String,
        /// The nodes.
        offered: Vec<String>,
    },
    /// Bind the pod to the node.
    Bind {
        /// The pod.
        pod: PodKey,
        /// Its uid.
        uid: String,
        /// The node.
        node: String,
    },
}

/// An answer to kube-scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// These nodes.
    Nodes(Vec<String>),
    /// No node, and why.
    Refused(String),
    /// The best node.
    Preferred(Option<String>),
    /// Bound.
    Bound,
    /// An error; also that nobody answered.
    Error(String),
}

/// What a process wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a request; its outcome comes back under this number.
    Request(u64, ApiRequest),
    /// Answer a call.
    Reply(u64, Reply),
    /// Call [`Subject::work`] with this number some time later.
    Work(u64),
}

/// A process under test. It forgets everything when it is dropped.
pub trait Subject {
    /// A fresh process.
    fn start() -> Self;
    /// A watch or a list says this.
    fn observe(&mut self, now: Time, change: &Change);
    /// Everything has been listed.
    fn synced(&mut self, now: Time);
    /// kube-scheduler calls.
    fn call(&mut self, now: Time, ticket: u64, call: Call);
    /// A request has ended.
    fn outcome(&mut self, now: Time, request: u64, outcome: ApiOutcome);
    /// Work that was put off is done.
    fn work(&mut self, now: Time, work: u64);
    /// Time passes.
    fn tick(&mut self, now: Time);
    /// What is to be done since the last call.
    fn actions(&mut self) -> Vec<Action>;
    /// The node that the process holds for a pod that waits, by uid.
    fn holds(&self, uid: &str) -> Option<String>;
    /// Why a pod waits.
    fn explained(&self, pod: &SimPod) -> Option<String>;
}

/// Milliseconds after which a filter and a bind call are answered at the latest.
const FILTER_DEADLINE: i64 = 45;
const BIND_DEADLINE: i64 = 4_000;

/// Times of a simulated extender; short, so that they all happen.
pub(super) const TIMING: Timing = Timing { expiry: 10_000, vacancy: 5_000, unsure: 1_000, settle: 2_000 };

struct Pending {
    ticket: u64,
    call: Call,
    attempt: Option<u64>,
    deadline: Time,
}

/// The extender on the real ledger.
pub struct ExtenderSubject {
    core: ExtenderCore<Ledger>,
    pending: Vec<Pending>,
    jobs: BTreeMap<u64, PlanJob<Ledger>>,
    requests: BTreeMap<u64, ApiRequest>,
    next: u64,
    actions: Vec<Action>,
    /// Schedules by itself.
    own: bool,
}

/// A node as the ledger knows it.
pub fn ledger_node(node: &SimNode) -> Node {
    let labels = BTreeMap::from([
        ("kubernetes.io/hostname".to_owned(), node.name.clone()),
        ("muster.dev/rack".to_owned(), format!("rack-{}", node.rack)),
    ]);
    Node {
        name: node.name.clone(),
        labels,
        schedulable: node.ready,
        allocatable: Resources::new().with(GPU_RESOURCE, i64::from(node.gpus) * 1000).with("pods", 110_000),
        gpu_slots: node.gpus,
        ..Node::default()
    }
}

/// A pod as a member of a gang.
pub fn ledger_member(pod: &SimPod) -> Member {
    Member {
        name: pod.key.name.clone(),
        uid: pod.uid.clone(),
        requests: Resources::new().with(GPU_RESOURCE, i64::from(pod.gpus) * 1000).with("pods", 1000),
        gpus: pod.gpus,
        rank: pod.rank,
        ..Member::default()
    }
}

/// A pod's gang without its pods.
pub fn ledger_gang(pod: &SimPod) -> Option<Gang> {
    let (name, min_available) = pod.gang.clone()?;
    let namespace = pod.key.namespace.clone();
    Some(Gang { namespace, name, min_available, ..Gang::default() })
}

/// The gang of a pod as the extender names it.
pub fn gang_key(pod: &SimPod) -> GangKey {
    let name = pod.gang.as_ref().map_or_else(|| format!("pod {}", pod.key.name), |(name, _)| name.clone());
    GangKey::new(&pod.key.namespace, name)
}

impl ExtenderSubject {
    fn identity<'a>(pod: &'a PodKey, uid: &'a str) -> PodIdentity<'a> {
        PodIdentity { namespace: (&pod.namespace).into(), name: (&pod.name).into(), uid: uid.into() }
    }

    /// Looks at every open call again, then hands out what is to be done.
    fn settle(&mut self, now: Time) {
        if self.own {
            self.core.bind_own(now, false);
        }
        for mut pending in std::mem::take(&mut self.pending) {
            match self.step(now, &mut pending) {
                Some(reply) => self.actions.push(Action::Reply(pending.ticket, reply)),
                None => self.pending.push(pending),
            }
        }
        for effect in self.core.effects() {
            self.next += 1;
            let request = match effect {
                Effect::Plan(job) => {
                    self.jobs.insert(self.next, job);
                    self.actions.push(Action::Work(self.next));
                    continue;
                }
                Effect::Write(write) => ApiRequest::Write(write),
                Effect::MarkBound { gang, epoch } => ApiRequest::MarkBound(gang, epoch),
                Effect::Remove { gang, resource_version } => ApiRequest::Remove(gang, resource_version),
                Effect::Bind(bind) => ApiRequest::Bind(bind),
                Effect::Look(bind) => ApiRequest::Look(bind),
            };
            self.requests.insert(self.next, request.clone());
            self.actions.push(Action::Request(self.next, request));
        }
    }

    fn step(&mut self, now: Time, pending: &mut Pending) -> Option<Reply> {
        let late = now >= pending.deadline;
        let error = |text: &str| Some(Reply::Error(text.to_owned()));
        match &pending.call {
            Call::Filter { pod, uid, offered } => {
                let nodes = Offered::Names(offered.iter().map(Into::into).collect());
                match self.core.filter(&Self::identity(pod, uid), &nodes) {
                    FilterStep::NotSynced => error("not synced"),
                    FilterStep::Wait(why) if late => error(why),
                    FilterStep::Wait(_) => None,
                    FilterStep::Answer(Verdict::Any) => Some(Reply::Nodes(offered.clone())),
                    FilterStep::Answer(Verdict::Node(node)) => Some(Reply::Nodes(vec![node])),
                    FilterStep::Answer(Verdict::Refused(refusal)) => Some(Reply::Refused(refusal.reason)),
                    FilterStep::Answer(Verdict::Error(text)) => Some(Reply::Error(text)),
                }
            }
            Call::Prioritize { pod, uid, offered } => {
                let nodes = Offered::Names(offered.iter().map(Into::into).collect());
                Some(Reply::Preferred(self.core.preferred(&Self::identity(pod, uid), &nodes)))
            }
            Call::Bind { pod, uid, node } => {
                let request = BindRequest { pod: Self::identity(pod, uid), node: node.into() };
                match self.core.bind(now, &request, pending.attempt) {
                    BindStep::NotSynced => error("not synced"),
                    BindStep::Unseen | BindStep::Wait(_) if late => error("too late"),
                    BindStep::Unseen => None,
                    BindStep::Wait(attempt) => {
                        pending.attempt = Some(attempt);
                        None
                    }
                    BindStep::Answer(Ok(())) => Some(Reply::Bound),
                    BindStep::Answer(Err(text)) => Some(Reply::Error(text)),
                }
            }
        }
    }
}

impl Subject for ExtenderSubject {
    fn start() -> Self {
        Self {
            core: ExtenderCore::new(Ledger::default(), TIMING),
            pending: Vec::new(),
            jobs: BTreeMap::new(),
            requests: BTreeMap::new(),
            next: 0,
            actions: Vec::new(),
            own: false,
        }
    }

    fn observe(&mut self, now: Time, change: &Change) {
        match change {
            Change::Node(node) => self.core.node_seen(now, ledger_node(node)),
            Change::NodeGone(name) => self.core.node_gone(now, name),
            Change::Pod(pod) => {
                let member = ledger_member(pod);
                let state = match &pod.node {
                    None => PodState::Waiting,
                    Some(node) => {
                        let plans: &Ledger = self.core.plans();
                        PodState::Bound(crate::plans::Plans::assignment(
                            plans,
                            &member,
                            node,
                            &pod.gpu_indices,
                        ))
                    }
                };
                let gang = ledger_gang(pod).map(Arc::new);
                let created = Time(pod.created);
                let key = pod.key.clone();
                self.core.pod_seen(
                    now,
                    PodSeen {
                        key,
                        member,
                        gang,
                        owner: None,
                        priority: 0,
                        created,
                        planned: true,
                        own: self.own,
                        held: None,
                        state,
                    },
                );
            }
            Change::PodGone(pod, uid) => self.core.pod_gone(now, pod, uid),
            Change::Reservation(seen) => self.core.reservation_seen(now, seen.clone()),
            Change::ReservationGone(key) => self.core.reservation_gone(key),
        }
        self.settle(now);
    }

    fn synced(&mut self, now: Time) {
        self.core.synced(now);
        self.settle(now);
    }

    fn call(&mut self, now: Time, ticket: u64, call: Call) {
        let patience = if matches!(call, Call::Bind { .. }) { BIND_DEADLINE } else { FILTER_DEADLINE };
        self.pending.push(Pending { ticket, call, attempt: None, deadline: now.plus(patience) });
        self.settle(now);
    }

    fn outcome(&mut self, now: Time, request: u64, outcome: ApiOutcome) {
        match (self.requests.remove(&request), outcome) {
            (Some(ApiRequest::Write(write)), ApiOutcome::Write(outcome)) => {
                self.core.written(now, &write, outcome);
            }
            (Some(ApiRequest::Bind(bind) | ApiRequest::Look(bind)), ApiOutcome::Bind(outcome)) => {
                self.core.bound(now, &bind, outcome);
            }
            _ => {}
        }
        self.settle(now);
    }

    fn work(&mut self, now: Time, work: u64) {
        if let Some(job) = self.jobs.remove(&work) {
            self.core.planned(now, job.run());
        }
        self.settle(now);
    }

    fn tick(&mut self, now: Time) {
        self.core.tick(now);
        if self.own {
            self.core.bind_own(now, true);
        }
        self.settle(now);
    }

    fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    fn holds(&self, uid: &str) -> Option<String> {
        self.core.holds(uid).map(str::to_owned)
    }

    fn explained(&self, pod: &SimPod) -> Option<String> {
        let report = self.core.explain(&gang_key(pod))?;
        if report.phase == "Waiting" { report.reason } else { None }
    }
}

/// The same process without kube-scheduler: it binds all pods by itself.
pub struct BinderSubject(ExtenderSubject);

impl Subject for BinderSubject {
    fn start() -> Self {
        Self(ExtenderSubject { own: true, ..ExtenderSubject::start() })
    }

    fn observe(&mut self, now: Time, change: &Change) {
        self.0.observe(now, change);
    }

    fn synced(&mut self, now: Time) {
        // It binds from the next tick on: what was read back is looked at before.
        self.0.core.synced(now);
    }

    fn call(&mut self, _: Time, ticket: u64, _: Call) {
        self.0.actions.push(Action::Reply(ticket, Reply::Error("nobody answers here".to_owned())));
    }

    fn outcome(&mut self, now: Time, request: u64, outcome: ApiOutcome) {
        self.0.outcome(now, request, outcome);
    }

    fn work(&mut self, now: Time, work: u64) {
        self.0.work(now, work);
    }

    fn tick(&mut self, now: Time) {
        self.0.tick(now);
    }

    fn actions(&mut self) -> Vec<Action> {
        self.0.actions()
    }

    fn holds(&self, uid: &str) -> Option<String> {
        self.0.holds(uid)
    }

    fn explained(&self, pod: &SimPod) -> Option<String> {
        self.0.explained(pod)
    }
}
