//! What people read on pods: events, and the condition that says why a pod waits. Only so many requests at once,
//! and never in the way of a binding.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use muster_machinery::CancellationToken;
use muster_scheduler_api::SCHEDULER_NAME;
use muster_scheduler_core::PodKey;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;

use crate::attempt::attempt;
use crate::planner::Opening;

/// Requests that are under way at once.
const CONCURRENT: usize = 16;
/// Events that wait to be written; older ones are lost, which harms nothing.
const WAITING_EVENTS: usize = 20_000;

/// Something to say about a pod.
#[derive(Debug, Clone)]
pub(crate) enum Note {
    /// An event.
    Event(EventNote),
    /// Why it waits: the condition, and an event where the kind of reason is a new one.
    Waits {
        /// The pod.
        pod: PodKey,
        /// Its uid.
        uid: String,
        /// One sentence.
        message: String,
        /// Whether an event says so too.
        with_event: bool,
        /// How its gate opens, where it waits behind one.
        gate: Option<Opening>,
    },
}

/// An event about a pod.
#[derive(Debug, Clone)]
pub(crate) struct EventNote {
    pod: PodKey,
    uid: String,
    /// Whether the pod is another scheduler's.
    foreign: bool,
    kind: &'static str,
    reason: &'static str,
    message: String,
}

impl Note {
    pub(crate) fn event(
        pod: &PodKey,
        uid: &str,
        foreign: bool,
        kind: &'static str,
        reason: &'static str,
        message: String,
    ) -> Self {
        Self::Event(EventNote { pod: pod.clone(), uid: uid.to_owned(), foreign, kind, reason, message })
    }
}

/// Why a pod waits.
#[derive(Debug)]
struct Wait {
    uid: String,
    message: String,
    with_event: bool,
    gate: Option<Opening>,
}

/// What has not been said yet; of several reasons why one pod waits, the last.
#[derive(Debug, Default)]
struct Pending {
    events: VecDeque<EventNote>,
    waits: BTreeMap<PodKey, Wait>,
}

impl Pending {
    fn next(&mut self) -> Option<Note> {
        if let Some((pod, Wait { uid, message, with_event, gate })) = self.waits.pop_first() {
            return Some(Note::Waits { pod, uid, message, with_event, gate });
        }
        self.events.pop_front().map(Note::Event)
    }
}

/// Says things in the background.
pub(crate) struct Teller {
    client: Client,
    /// Who the events about pods of its own are from.
    component: &'static str,
    pending: Mutex<Pending>,
    wake: Notify,
}

impl Teller {
    pub(crate) fn new(client: Client, component: &'static str) -> Arc<Self> {
        Arc::new(Self { client, component, pending: Mutex::default(), wake: Notify::new() })
    }

    /// Soon says it.
    pub(crate) fn say(&self, note: Note) {
        let mut pending = self.pending.lock();
        match note {
            Note::Event(event) => {
                if pending.events.len() >= WAITING_EVENTS {
                    pending.events.pop_front();
                }
                pending.events.push_back(event);
            }
            Note::Waits { pod, uid, message, with_event, gate } => {
                let unsaid = pending.waits.get(&pod).is_some_and(|wait| wait.uid == uid && wait.with_event);
                pending.waits.insert(pod, Wait { uid, message, with_event: with_event || unsaid, gate });
            }
        }
        drop(pending);
        self.wake.notify_one();
    }

    /// Forgets what was to be said of why a pod waits: it does no more.
    pub(crate) fn waits_no_more(&self, pod: &PodKey) {
        self.pending.lock().waits.remove(pod);
    }

    /// Works until the end, then says what is left.
    pub(crate) async fn run(&self, end: CancellationToken) {
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < CONCURRENT {
                let Some(note) = self.pending.lock().next() else { break };
                under_way.push(self.carry_out(note));
            }
            if under_way.is_empty() && end.is_cancelled() {
                return;
            }
            tokio::select! {
                Some(()) = under_way.next() => {}
                () = self.wake.notified() => {}
                () = end.cancelled(), if !end.is_cancelled() => {}
            }
        }
    }

    async fn carry_out(&self, note: Note) {
        match note {
            Note::Event(event) => self.publish(&event).await,
            Note::Waits { pod, uid, message, with_event, gate } => {
                let because = if gate.is_some() { "SchedulingGated" } else { "Unschedulable" };
                if self.write_condition(&pod, &uid, because, &message).await && with_event {
                    let (kind, reason, foreign) =
                        ("Warning", "FailedScheduling", gate == Some(Opening::Only));
                    self.publish(&EventNote { pod, uid, foreign, kind, reason, message }).await;
                }
            }
        }
    }

    /// Writes into the pod's status why it waits; whether that went well.
    async fn write_condition(&self, pod: &PodKey, uid: &str, reason: &str, message: &str) -> bool {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let version = match attempt(api.get_opt(&pod.name)).await {
            Ok(Some(found)) if waits(&found) => found.metadata.resource_version,
            Ok(_) => return false,
            Err(error) => {
                tracing::debug!(%error, %pod, "cannot say why the pod waits");
                return false;
            }
        };
        // With its version: a binding that is done meanwhile has said that the pod is scheduled.
        let status = json!({"metadata": {"uid": uid, "resourceVersion": version}, "status": {"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": reason,
            "message": message, "lastTransitionTime": now(),
        }]}});
        let (parameters, patch) = (PatchParams::default(), Patch::Strategic(&status));
        match attempt(api.patch_status(&pod.name, &parameters, &patch)).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%error, %pod, "cannot say why the pod waits");
                false
            }
        }
    }

    /// Writes an event; losing one harms nothing.
    async fn publish(&self, note: &EventNote) {
        let EventNote { pod, uid, foreign, kind, reason, message } = note;
        // Nobody speaks in the name of another scheduler.
        let component = if *foreign { SCHEDULER_NAME } else { self.component };
        let now = Timestamp::now();
        let event = Event {
            metadata: ObjectMeta {
                // As client-go names events: `generateName` may not end with a dot.
                name: Some(format!("{}.{:x}", pod.name, now.as_nanosecond())),
                namespace: Some(pod.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(pod.name.clone()),
                namespace: Some(pod.namespace.clone()),
                uid: Some(uid.clone()),
                ..ObjectReference::default()
            },
            type_: Some((*kind).to_owned()),
            reason: Some((*reason).to_owned()),
            message: Some(message.clone()),
            source: Some(EventSource { component: Some(component.to_owned()), ..EventSource::default() }),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &pod.namespace);
        if let Err(error) = attempt(api.create(&PostParams::default(), &event)).await {
            tracing::debug!(%error, %pod, "cannot write an event");
        }
    }
}

/// Whether a pod has no node yet.
fn waits(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_none_or(str::is_empty)
}

/// Now, as conditions write it.
pub(crate) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
