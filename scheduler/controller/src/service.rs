//! `Options` → [`Service::run`]: watches, the planning loop, and the tasks that carry decisions out.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::api::{Api, ListParams};
use kube::runtime::watcher::Event;
use muster_machinery::{CancellationToken, Clock, SystemClock};
use muster_scheduler_api::{
    AdvanceReservation, DEFAULT_SCHEDULER_NAME, GangReservation, Queue, SCHEDULER_NAME,
};
use muster_scheduler_core::{ClaimKey, PodKey};
use muster_scheduler_topology::Topology;
use muster_scheduler_topology::import::TopologySources;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::bind::Binder;
use crate::claims;
use crate::dashboard::{self, Leading};
use crate::evict::{Cause, evict};
use crate::groups;
use crate::metrics;
use crate::observe::{Change, Relisting, watch};
use crate::places;
use crate::plan;
use crate::planner::{Answers, Decision, DeviceEvent, Eviction, GroupEvent, Outcome, Planner};
use crate::status::{self, Statuses};
use crate::tell::{Note, Teller};

/// Pause after something that the API server refused.
const AFTER_FAILURE: Duration = Duration::from_millis(500);
/// Longest that a graceful stop waits for bindings that are under way.
const LAST_BINDINGS: Duration = Duration::from_secs(5);
/// Longest that it waits for what is still to be said.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Shortest pause between two looks at why gangs wait. Such looks take no more than half of the time.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(200);

/// How to run the binder.
#[derive(Clone)]
pub struct Options {
    /// The cluster.
    pub client: Client,
    /// Which pods it binds, by `spec.schedulerName`. Gates of gangs it opens for any scheduler: with no name, only those.
    pub scheduler_names: Vec<String>,
    /// Where nodes are, when it is not to be read from the cluster.
    pub topology: Option<Topology>,
    /// Where the planner shows itself, if anywhere.
    pub dashboard: Option<dashboard::Handle>,
}

impl Options {
    /// For a cluster that has its own scheduler: only pods that ask for Muster.
    pub fn beside_another_scheduler(client: Client) -> Self {
        let scheduler_names = vec![SCHEDULER_NAME.to_owned()];
        Self { client, scheduler_names, topology: None, dashboard: None }
    }

    /// For a cluster without another scheduler: pods that name none, too.
    pub fn only_scheduler(client: Client) -> Self {
        let scheduler_names = vec![SCHEDULER_NAME.to_owned(), DEFAULT_SCHEDULER_NAME.to_owned()];
        Self { client, scheduler_names, topology: None, dashboard: None }
    }

    /// The service.
    pub fn build(self) -> Service {
        Service { options: self, clock: SystemClock }
    }
}

/// The binder.
pub struct Service {
    options: Options,
    clock: SystemClock,
}

/// What the loop hears; moved once, so the size of a pod does no harm.
#[expect(clippy::large_enum_variant, reason = "a box a pod costs more than the move")]
enum Heard {
    Nodes(Event<Node>),
    Pods(Event<Pod>),
    Queues(Event<Queue>),
    Reservations(Event<AdvanceReservation>),
    Group(GroupEvent),
    Devices(DeviceEvent),
    Places(TopologySources),
    CarriedOut(Outcome),
    Discarded {
        namespace: String,
        gang: String,
    },
    NotEvicted(Vec<(PodKey, String)>),
    GaveBack(ClaimKey),
    Answered {
        answers: Option<Answers>,
        took: Duration,
    },
    /// Somebody wants a picture of the planner.
    Asked,
}

impl Service {
    /// Binds pods until the shutdown; then lets bindings that are under way end, for a while.
    pub async fn run(self, shutdown: CancellationToken) {
        let client = &self.options.client;
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut watches = JoinSet::new();
        watches.spawn(watch(Api::<Node>::all(client.clone()), Heard::Nodes, sender.clone()));
        watches.spawn(watch(Api::<Pod>::all(client.clone()), Heard::Pods, sender.clone()));
        watches.spawn(watch(Api::<Queue>::all(client.clone()), Heard::Queues, sender.clone()));
        watches.spawn({
            let (client, sender) = (client.clone(), sender.clone());
            let tree = self.options.topology.clone();
            async move {
                places::follow(&client, tree, |sources| sender.send(Heard::Places(sources)).is_ok()).await;
            }
        });
        let reservations = Api::<AdvanceReservation>::all(client.clone());
        watches.spawn(watch(reservations, Heard::Reservations, sender.clone()));
        let teller = Teller::new(client.clone(), DEFAULT_SCHEDULER_NAME);
        let last_words = CancellationToken::new();
        // Whoever drops this future, as the end of leadership does, ends these tasks too.
        let mut telling = JoinSet::new();
        telling.spawn({
            let (teller, end) = (Arc::clone(&teller), last_words.clone());
            async move { teller.run(end).await }
        });
        let leading = self.options.dashboard.as_ref().map(|dashboard| {
            let sender = sender.clone();
            dashboard.lead(move || {
                let _heard = sender.send(Heard::Asked);
            })
        });
        let mut hands = Hands {
            client: client.clone(),
            binder: Binder::new(client.clone(), Arc::clone(&teller), shutdown.clone()),
            teller,
            sender,
            stop: shutdown.clone(),
            tasks: JoinSet::new(),
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.plan(receiver, &mut hands, leading.as_ref()) => {}
        }
        drop(leading);
        watches.shutdown().await;
        if timeout(LAST_BINDINGS, async { while hands.tasks.join_next().await.is_some() {} }).await.is_err() {
            tracing::info!(
                tasks = hands.tasks.len(),
                "requests were still under way when the scheduler ended"
            );
        }
        hands.tasks.shutdown().await;
        last_words.cancel();
        let _in_time = timeout(LAST_WORDS, telling.join_next()).await;
        telling.shutdown().await;
    }

    async fn plan(
        &self,
        mut heard: mpsc::UnboundedReceiver<Heard>,
        hands: &mut Hands,
        leading: Option<&Leading>,
    ) {
        let mut planner = Planner::new(self.options.scheduler_names.iter().cloned());
        let mut listed = Listed::default();
        let mut restored = false;
        let mut watches = JoinSet::new();
        let mut again: Option<Instant> = None;
        // When the planner itself wants to be asked again.
        let mut due: Option<Instant> = None;
        // When statuses are looked at again; later when nothing has happened since.
        let (mut statuses, mut stirred) = (Instant::now(), true);
        metrics::describe();
        let mut gauges = metrics::Gauges::default();
        // When the next question may be asked; none while one is being answered.
        let mut questions = Some(Instant::now());
        loop {
            let mut next = match again {
                None => heard.recv().await,
                Some(at) => timeout_at(at, heard.recv()).await.unwrap_or(None),
            };
            stirred |= due.is_some_and(|due| due <= Instant::now());
            // Whatever has come in by now is seen before anything is decided.
            while let Some(one) = next {
                stirred |= !matches!(one, Heard::Asked);
                match one {
                    Heard::Answered { answers, took } => {
                        metrics::explained(took);
                        questions = Some(Instant::now() + took.max(BETWEEN_QUESTIONS));
                        let now = self.clock.now();
                        let told = answers.map(|answers| planner.answered(answers, now));
                        told.into_iter().flatten().for_each(|decision| hands.carry_out(decision));
                    }
                    other => listed.hear(&mut planner, other),
                }
                next = heard.try_recv().ok();
            }
            while hands.tasks.try_join_next().is_some() {}
            if planner.begins_to_need_devices() {
                let sender = hands.sender.clone();
                let tell = move |event| sender.send(Heard::Devices(event)).is_ok();
                claims::watch(&self.options.client, &tell, &mut watches);
            }
            for kind in planner.group_kinds_to_watch() {
                let sender = hands.sender.clone();
                let tell = move |event| sender.send(Heard::Group(event)).is_ok();
                watches.spawn(groups::watch(self.options.client.clone(), kind, tell));
            }
            // A plan of the last run may name devices.
            if !listed.complete() || !planner.knows_devices() {
                again = None;
                continue;
            }
            if !restored {
                match self.restore(&mut planner).await {
                    Ok(unfinished) => unfinished.into_iter().for_each(|decision| hands.carry_out(decision)),
                    Err(error) => {
                        tracing::warn!(error = %muster_machinery::hint::chain(&error), "cannot read the plans of the last run; nothing is planned before they are known");
                        again = Some(Instant::now() + AFTER_FAILURE);
                        continue;
                    }
                }
                restored = true;
            }
            let began = Instant::now();
            let planned = planner.decide(self.clock.now());
            metrics::decided(began.elapsed(), &planned);
            let fault = planner.places_fault();
            if let Some(fault) = fault.as_ref().filter(|_| fault != listed.places_fault) {
                tracing::warn!(%fault, "where nodes are is read from their labels instead");
            }
            listed.places_fault = fault;
            let faults = planner.inside_faults();
            for fault in faults.iter().filter(|fault| !listed.inside_faults.contains(fault)) {
                tracing::warn!(%fault, "what is written of the inside of a node is not followed");
            }
            listed.inside_faults = faults;
            due = planned
                .again_in
                .and_then(|wait| Duration::try_from(wait).ok())
                .map(|wait| Instant::now() + wait);
            again = due;
            stirred |= !planned.now.is_empty();
            planned.now.into_iter().for_each(|decision| hands.carry_out(decision));
            if let Some(leading) = leading.filter(|leading| leading.is_asked()) {
                let began = Instant::now();
                let picture = planner.clone();
                leading.show(picture, self.clock.now(), began.elapsed());
            }
            if stirred && statuses <= Instant::now() {
                (statuses, stirred) = (Instant::now() + status::PERIOD, false);
                hands.write(listed.statuses.changes(&mut planner, self.clock.now()));
                gauges.show(&planner.figures());
            } else if stirred {
                again = Some(again.map_or(statuses, |again| again.min(statuses)));
            }
            match questions {
                Some(at) if at <= Instant::now() => {
                    if let Some(question) = planner.question(self.clock.now()) {
                        questions = None;
                        hands.ask(question);
                    }
                }
                Some(at) => again = Some(again.map_or(at, |again| again.min(at))),
                None => {}
            }
        }
    }

    /// Plans that the last run wrote down and did not finish.
    async fn restore(&self, planner: &mut Planner) -> Result<Vec<Decision>, kube::Error> {
        let api: Api<GangReservation> = Api::all(self.options.client.clone());
        let list = api.list(&ListParams::default()).await?;
        Ok(planner.restore(&list).into_iter().map(Decision::Bind).collect())
    }
}

/// Carries decisions out, each in a task of its own.
struct Hands {
    client: Client,
    binder: Binder,
    teller: Arc<Teller>,
    /// The loop is gone only at shutdown.
    sender: mpsc::UnboundedSender<Heard>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Hands {
    fn carry_out(&mut self, decision: Decision) {
        let (client, sender, stop) = (self.client.clone(), self.sender.clone(), self.stop.clone());
        match decision {
            Decision::Bind(binding) => {
                let binder = self.binder.clone();
                self.tasks.spawn(async move {
                    let outcome = binder.carry_out(&binding).await;
                    if !outcome.refused.is_empty() {
                        // Whatever refused it will not have changed its mind at once.
                        tokio::select! {
                            () = tokio::time::sleep(AFTER_FAILURE) => {}
                            () = stop.cancelled() => {}
                        }
                    }
                    let _heard = sender.send(Heard::CarriedOut(outcome));
                });
            }
            Decision::Discard { namespace, gang, written } => {
                self.tasks.spawn(async move {
                    let _gone = plan::discard(&client, &namespace, &gang, &written).await;
                    let _heard = sender.send(Heard::Discarded { namespace, gang });
                });
            }
            Decision::GiveBack { claim, resource_version, pods } => {
                self.tasks.spawn(async move {
                    claims::give_back(&client, &claim, &resource_version, &pods).await;
                    tokio::select! {
                        () = tokio::time::sleep(AFTER_FAILURE) => {}
                        () = stop.cancelled() => {}
                    }
                    let _heard = sender.send(Heard::GaveBack(claim));
                });
            }
            Decision::Evict { pods, why, foreign, message } => {
                let teller = Arc::clone(&self.teller);
                let cause = Cause { why, foreign, message };
                self.tasks.spawn(async move {
                    let deleted = evict(&client, &teller, &pods, &cause, &stop).await;
                    if !deleted && cause.why == Eviction::Preempted {
                        let _heard = sender.send(Heard::NotEvicted(pods));
                    }
                });
            }
            Decision::Explain { pod, uid, message, news, gate } => {
                self.teller.say(Note::Waits { pod, uid, message, with_event: news, gate });
            }
        }
    }

    fn write(&mut self, changes: Vec<status::Change>) {
        if changes.is_empty() {
            return;
        }
        let client = self.client.clone();
        self.tasks.spawn(async move {
            for change in changes {
                change.write(&client).await;
            }
        });
    }

    fn ask(&mut self, question: crate::planner::Question) {
        let (sender, stop) = (self.sender.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let began = Instant::now();
            let answer = move || question.answer(|| !stop.is_cancelled());
            // Not when the runtime ends.
            let answers = tokio::task::spawn_blocking(answer).await.ok();
            let _heard = sender.send(Heard::Answered { answers, took: began.elapsed() });
        });
    }
}

/// What has been listed so far: nothing is decided on half a picture.
#[derive(Default)]
struct Listed {
    nodes: Relisting,
    pods: Relisting,
    queues: Relisting,
    places: bool,
    reservations: Relisting,
    statuses: Statuses,
    /// As it was told last.
    places_fault: Option<String>,
    inside_faults: Vec<String>,
}

impl Listed {
    fn complete(&self) -> bool {
        let Self { nodes, pods, queues, reservations, .. } = self;
        self.places && [nodes, pods, queues, reservations].iter().all(|listed| listed.complete)
    }

    fn hear(&mut self, planner: &mut Planner, heard: Heard) {
        match heard {
            Heard::Nodes(event) => self.nodes.hear(event, |change| match change {
                Change::Seen(node) => planner.node_seen(node),
                Change::Gone { name, .. } => planner.node_gone(name),
            }),
            Heard::Pods(event) => self.pods.hear(event, |change| match change {
                Change::Seen(pod) => planner.pod_seen(pod),
                Change::Gone { namespace, name, uid } => {
                    planner.pod_gone(&PodKey::new(namespace, name), uid);
                }
            }),
            Heard::Queues(event) => self.queues.hear(event, |change| match change {
                Change::Seen(queue) => {
                    self.statuses.queue_seen(queue);
                    planner.queue_seen(queue);
                }
                Change::Gone { name, .. } => {
                    self.statuses.queue_gone(name);
                    planner.queue_gone(name);
                }
            }),
            Heard::Reservations(event) => self.reservations.hear(event, |change| match change {
                Change::Seen(reservation) => {
                    self.statuses.reservation_seen(reservation);
                    planner.reservation_seen(reservation);
                }
                Change::Gone { name, .. } => {
                    self.statuses.reservation_gone(name);
                    planner.reservation_gone(name);
                }
            }),
            Heard::Group(event) => planner.group_changed(event),
            Heard::Devices(event) => planner.devices_changed(event),
            Heard::GaveBack(claim) => planner.gave_back(&claim),
            Heard::Places(sources) => {
                self.places = true;
                planner.places_described(sources);
            }
            Heard::CarriedOut(outcome) => planner.carried_out(&outcome),
            Heard::Discarded { namespace, gang } => planner.discarded(&namespace, &gang),
            Heard::NotEvicted(pods) => planner.not_evicted(&pods),
            Heard::Answered { .. } | Heard::Asked => {}
        }
    }
}
