//! `Options` → [`Service::run`]: watches, the planning loop, and the tasks that carry decisions out.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use muster_machinery::{CancellationToken, Clock, SystemClock};
use muster_scheduler_api::{DEFAULT_SCHEDULER_NAME, GangReservation, Queue, SCHEDULER_NAME};
use muster_scheduler_core::PodKey;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::bind;
use crate::groups;
use crate::planner::{Decision, GroupEvent, Planner};

/// Pause after something that the API server refused.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// How to run the binder.
#[derive(Clone)]
pub struct Options {
    /// The cluster.
    pub client: Client,
    /// Which pods it binds, by `spec.schedulerName`.
    pub scheduler_names: Vec<String>,
}

impl Options {
    /// For a cluster that has its own scheduler: only pods that ask for Muster.
    pub fn beside_another_scheduler(client: Client) -> Self {
        Self { client, scheduler_names: vec![SCHEDULER_NAME.to_owned()] }
    }

    /// For a cluster without another scheduler: pods that name none, too.
    pub fn only_scheduler(client: Client) -> Self {
        Self { client, scheduler_names: vec![SCHEDULER_NAME.to_owned(), DEFAULT_SCHEDULER_NAME.to_owned()] }
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
    Group(GroupEvent),
    Failed(Vec<PodKey>),
}

impl Service {
    /// Binds pods until the shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(watch(Api::<Node>::all(self.options.client.clone()), Heard::Nodes, sender.clone()));
        tasks.spawn(watch(Api::<Pod>::all(self.options.client.clone()), Heard::Pods, sender.clone()));
        tasks.spawn(watch(Api::<Queue>::all(self.options.client.clone()), Heard::Queues, sender.clone()));
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.plan(receiver, sender) => {}
        }
        tasks.shutdown().await;
    }

    async fn plan(&self, mut heard: mpsc::UnboundedReceiver<Heard>, sender: mpsc::UnboundedSender<Heard>) {
        let mut planner = Planner::new(self.options.scheduler_names.iter().cloned());
        let mut listed = Listed::default();
        let mut restored = false;
        let mut binding = JoinSet::new();
        let mut watches = JoinSet::new();
        let mut again: Option<Instant> = None;
        loop {
            let first = match again {
                None => heard.recv().await,
                Some(at) => match timeout_at(at, heard.recv()).await {
                    Ok(first) => first,
                    Err(_) => Some(Heard::Failed(Vec::new())),
                },
            };
            let Some(first) = first else { return };
            // Whatever has come in by now is seen before anything is decided.
            let mut next = Some(first);
            while let Some(one) = next {
                listed.hear(&mut planner, one);
                next = heard.try_recv().ok();
            }
            while binding.try_join_next().is_some() {}
            for kind in planner.group_kinds_to_watch() {
                let sender = sender.clone();
                let tell = move |event| sender.send(Heard::Group(event)).is_ok();
                watches.spawn(groups::watch(self.options.client.clone(), kind, tell));
            }
            if !listed.complete() {
                continue;
            }
            let mut decisions = Vec::new();
            if !restored {
                match self.restore(&mut planner).await {
                    Ok(unfinished) => decisions.extend(unfinished),
                    Err(error) => {
                        tracing::warn!(error = %muster_machinery::hint::chain(&error), "cannot read the plans of the last run; nothing is planned before they are known");
                        again = Some(Instant::now() + AFTER_FAILURE);
                        continue;
                    }
                }
                restored = true;
            }
            let planned = planner.decide(self.clock.now());
            again = planned
                .again_in
                .and_then(|wait| Duration::try_from(wait).ok())
                .map(|wait| Instant::now() + wait);
            decisions.extend(planned.now);
            for decision in decisions {
                let (client, sender) = (self.options.client.clone(), sender.clone());
                binding.spawn(async move {
                    match decision {
                        Decision::Bind(places) => {
                            let failed = bind::carry_out(&client, DEFAULT_SCHEDULER_NAME, &places).await;
                            if !failed.is_empty() {
                                // Whatever refused it will not have changed its mind at once.
                                tokio::time::sleep(AFTER_FAILURE).await;
                                // The loop is gone only at shutdown.
                                let _heard = sender.send(Heard::Failed(failed));
                            }
                        }
                        Decision::Evict { pods, message } => {
                            bind::evict(&client, DEFAULT_SCHEDULER_NAME, &pods, &message).await;
                        }
                        Decision::Explain { pod, uid, message } => {
                            bind::explain(&client, DEFAULT_SCHEDULER_NAME, &pod, &uid, &message).await;
                        }
                    }
                });
            }
        }
    }

    /// Plans that the last run wrote down and did not finish.
    async fn restore(&self, planner: &mut Planner) -> Result<Vec<Decision>, kube::Error> {
        let api: Api<GangReservation> = Api::all(self.options.client.clone());
        let list = api.list(&ListParams::default()).await?;
        Ok(list.iter().filter_map(|reservation| planner.restore(reservation)).map(Decision::Bind).collect())
    }
}

/// What has been listed so far: nothing is decided on half a picture. A list after a lost watch also tells
/// which objects vanished meanwhile.
#[derive(Default)]
struct Listed {
    nodes: Relisting<Node>,
    pods: Relisting<Pod>,
    queues: Relisting<Queue>,
}

impl Listed {
    fn complete(&self) -> bool {
        self.nodes.complete && self.pods.complete && self.queues.complete
    }

    fn hear(&mut self, planner: &mut Planner, heard: Heard) {
        match heard {
            Heard::Nodes(event) => self.nodes.hear(event, |change| match change {
                Change::Seen(node) => planner.node_seen(node),
                Change::Gone(node) => planner.node_gone(&node.name_any()),
            }),
            Heard::Pods(event) => self.pods.hear(event, |change| match change {
                Change::Seen(pod) => planner.pod_seen(pod),
                Change::Gone(pod) => planner.pod_gone(pod),
            }),
            Heard::Queues(event) => self.queues.hear(event, |change| match change {
                Change::Seen(queue) => planner.queue_seen(queue),
                Change::Gone(queue) => planner.queue_gone(&queue.name_any()),
            }),
            Heard::Group(event) => planner.group_changed(event),
            Heard::Failed(pods) => {
                for pod in &pods {
                    planner.binding_failed(pod);
                }
            }
        }
    }
}

enum Change<'a, K> {
    Seen(&'a K),
    Gone(&'a K),
}

/// Turns a watcher's events, relists included, into plain changes.
struct Relisting<K> {
    complete: bool,
    known: HashMap<(Option<String>, String), K>,
    relisted: HashSet<(Option<String>, String)>,
}

impl<K> Default for Relisting<K> {
    fn default() -> Self {
        Self { complete: false, known: HashMap::new(), relisted: HashSet::new() }
    }
}

impl<K: ResourceExt + Clone> Relisting<K> {
    fn hear(&mut self, event: Event<K>, mut tell: impl FnMut(Change<'_, K>)) {
        let key = |object: &K| (object.namespace(), object.name_any());
        match event {
            Event::Init => self.relisted.clear(),
            Event::InitApply(object) => {
                self.relisted.insert(key(&object));
                tell(Change::Seen(&object));
                self.known.insert(key(&object), object);
            }
            Event::InitDone => {
                self.complete = true;
                let relisted = std::mem::take(&mut self.relisted);
                self.known.retain(|key, object| {
                    let still_there = relisted.contains(key);
                    if !still_there {
                        tell(Change::Gone(object));
                    }
                    still_there
                });
            }
            Event::Apply(object) => {
                tell(Change::Seen(&object));
                self.known.insert(key(&object), object);
            }
            Event::Delete(object) => {
                tell(Change::Gone(&object));
                self.known.remove(&key(&object));
            }
        }
    }
}

/// Sends what a watcher sees; it reconnects by itself with back-off.
async fn watch<K>(api: Api<K>, wrap: fn(Event<K>) -> Heard, sender: mpsc::UnboundedSender<Heard>)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    use kube::runtime::WatchStreamExt;
    let mut events =
        pin!(watcher(api, watcher::Config::default()).backoff(muster_machinery::watch::backoff()));
    loop {
        match events.try_next().await {
            Ok(Some(event)) => {
                if sender.send(wrap(event)).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            // The kind is not installed here: there are none of it.
            Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if status.code == 404 => {
                let none = [Event::Init, Event::InitDone].map(wrap);
                if none.into_iter().any(|event| sender.send(event).is_err()) {
                    return;
                }
            }
            Err(error) => tracing::debug!(%error, "the watch broke; resuming"),
        }
    }
}
