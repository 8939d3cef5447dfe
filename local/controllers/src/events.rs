//! Tells people what the controllers did, as core/v1 events; the same message again only counts.

use std::collections::HashMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::{Client, Resource};
use muster_machinery::CancellationToken;
use serde_json::json;
use tokio::sync::mpsc;

/// Events that may wait; more are dropped, as nothing depends on them.
const WAITING: usize = 1024;
/// Messages whose repetition is recognised.
const REMEMBERED: usize = 1024;

/// How grave an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Severity {
    /// As it should be.
    Normal,
    /// Somebody may want to look.
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What is told about an object.
#[derive(Debug, Clone)]
struct Note {
    component: &'static str,
    about: ObjectReference,
    severity: Severity,
    reason: String,
    message: String,
}

impl Note {
    fn identity(&self) -> String {
        let uid = self.about.uid.as_deref().unwrap_or_default();
        format!("{uid}\n{}\n{}\n{}\n{}", self.component, self.severity.as_str(), self.reason, self.message)
    }
}

/// Takes events; [`Notebook::run`] writes them.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    notes: mpsc::Sender<Note>,
}

/// Writes events.
pub(crate) struct Notebook {
    client: Client,
    notes: mpsc::Receiver<Note>,
    written: HashMap<String, (String, i32)>,
}

/// A recorder and what writes its events.
pub(crate) fn recorder(client: Client) -> (Recorder, Notebook) {
    let (sender, notes) = mpsc::channel(WAITING);
    (Recorder { notes: sender }, Notebook { client, notes, written: HashMap::new() })
}

impl Recorder {
    /// Tells that `component` did something to an object.
    pub(crate) fn tell<K: Resource<DynamicType = ()>>(
        &self,
        component: &'static str,
        about: &K,
        severity: Severity,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) {
        let note = Note {
            component,
            about: about.object_ref(&()),
            severity,
            reason: reason.into(),
            message: message.into(),
        };
        if self.notes.try_send(note).is_err() {
            tracing::debug!(component, "event dropped, too many are waiting");
        }
    }
}

impl Recorder {
    /// Tells that the API server refused something for an object. That somebody else was faster, or that the namespace
    /// is going, needs nobody's attention.
    pub(crate) fn tell_refused<K: Resource<DynamicType = ()>>(
        &self,
        component: &'static str,
        about: &K,
        reason: &'static str,
        deed: &str,
        error: &kube::Error,
    ) {
        let why = match error {
            kube::Error::Api(status) if matches!(status.code, 404 | 409) || is_of_ending(status) => return,
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        };
        self.tell(component, about, Severity::Warning, reason, format!("{deed}: {why}"));
    }
}

fn is_of_ending(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

impl Notebook {
    /// Writes events until the shutdown.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        while let Some(Some(note)) = shutdown.run_until_cancelled(self.notes.recv()).await {
            if let Err(error) = self.write(&note).await {
                tracing::debug!(reason = note.reason, %error, "event not written");
            }
        }
    }

    async fn write(&mut self, note: &Note) -> kube::Result<()> {
        let namespace = note.about.namespace.as_deref().unwrap_or("default");
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let now = Timestamp::now();
        let identity = note.identity();
        if let Some((name, count)) = self.written.get(&identity).cloned() {
            let patch = json!({ "count": count + 1, "lastTimestamp": Time(now) });
            let params = PatchParams { field_manager: Some(crate::MANAGER.into()), ..PatchParams::default() };
            if events.patch(&name, &params, &Patch::Merge(patch)).await.is_ok() {
                self.written.insert(identity, (name, count + 1));
                return Ok(());
            }
        }
        let event = event(note, namespace, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        events.create(&post_params(), &event).await?;
        if self.written.len() >= REMEMBERED {
            self.written.clear();
        }
        self.written.insert(identity, (name, 1));
        Ok(())
    }
}

fn event(note: &Note, namespace: &str, now: Timestamp) -> Event {
    let mut name = note.about.name.clone().unwrap_or_default();
    let _ = write!(name, ".{:x}", now.as_nanosecond());
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace.into()), ..ObjectMeta::default() },
        involved_object: note.about.clone(),
        reason: Some(note.reason.clone()),
        message: Some(note.message.clone()),
        type_: Some(note.severity.as_str().into()),
        source: Some(EventSource { component: Some(note.component.into()), host: None }),
        reporting_component: Some(note.component.into()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    }
}

/// Parameters of a creation by this crate.
pub(crate) fn post_params() -> PostParams {
    PostParams { field_manager: Some(crate::MANAGER.into()), ..PostParams::default() }
}
