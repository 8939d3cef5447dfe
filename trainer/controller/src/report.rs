//! Events and metrics.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event as KubeEvent, EventType as KubeEventType};
use muster_trainer_core::{Counter, Event, EventType, Kind};

use crate::events::Recorder;

/// Longest note the events API takes, in bytes.
const NOTE_LIMIT: usize = 1024;

/// An event about something this controller did, or could not do, to an object.
pub(crate) fn deed(succeeded: bool, verb: &str, kind: &str, message: String) -> Event {
    let (type_, prefix) =
        if succeeded { (EventType::Normal, "Successful") } else { (EventType::Warning, "Failed") };
    Event { type_, reason: format!("{prefix}{verb}{kind}"), message }
}

/// Publishes events; one that cannot be published is only logged.
pub(crate) async fn publish(recorder: &Recorder, reference: &ObjectReference, events: Vec<Event>) {
    for event in events {
        let mut note = event.message;
        if note.len() > NOTE_LIMIT {
            note.truncate(note.floor_char_boundary(NOTE_LIMIT - 3));
            note.push_str("...");
        }
        let event = KubeEvent {
            type_: match event.type_ {
                EventType::Normal => KubeEventType::Normal,
                EventType::Warning => KubeEventType::Warning,
            },
            action: event.reason.clone(),
            reason: event.reason,
            note: Some(note),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, reference).await {
            tracing::debug!(%error, reason = event.reason, "event not published");
        }
    }
}

pub(crate) fn count(kind: &Kind, namespace: &str, counters: &[Counter]) {
    for counter in counters {
        let name = match counter {
            Counter::Created => "training_operator_jobs_created_total",
            Counter::Successful => "training_operator_jobs_successful_total",
            Counter::Failed => "training_operator_jobs_failed_total",
            Counter::Restarted => "training_operator_jobs_restarted_total",
        };
        count_one(name, kind, namespace);
    }
}

pub(crate) fn count_one(name: &'static str, kind: &Kind, namespace: &str) {
    let labels = [("job_namespace", namespace.to_owned()), ("framework", kind.framework_label.to_owned())];
    metrics::counter!(name, &labels).increment(1);
}
