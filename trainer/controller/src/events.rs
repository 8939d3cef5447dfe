//! Writes `events.k8s.io` events; one that comes again within minutes only counts, as those of Kubernetes' components.
//!
//! kube's own recorder keeps whole events, 2.5 KB each in a table with room to spare, and goes through all of them
//! whenever it writes one: with a thousand jobs that is 10 MB and a share of each job's time.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as EventObject;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::events::{Event, EventType, Reporter};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::reconcile::is_not_found;

/// So long after an event the same one counts as a repetition.
const REMEMBERED_FOR: SignedDuration = SignedDuration::from_mins(6);
/// So many events are remembered before old ones are looked for.
const FIRST_SWEEP: usize = 256;

/// What tells events apart. Their notes do not: a number in one would make each repetition an event of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    is_warning: bool,
    action: String,
    reason: String,
}

/// An event that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Written {
    name: String,
    count: i32,
    at: Timestamp,
}

/// The events of the last minutes.
#[derive(Debug)]
struct Memory {
    written: HashMap<Key, Written>,
    next_sweep: usize,
}

/// Writes the events of one controller.
pub(crate) struct Recorder {
    client: Client,
    reporter: Reporter,
    memory: Mutex<Memory>,
}

impl Memory {
    fn new() -> Self {
        Self { written: HashMap::new(), next_sweep: FIRST_SWEEP }
    }

    fn find(&self, key: &Key, now: Timestamp) -> Option<Written> {
        self.written.get(key).filter(|written| written.at + REMEMBERED_FOR > now).cloned()
    }

    fn note(&mut self, key: Key, written: Written) {
        let now = written.at;
        self.written.insert(key, written);
        if self.written.len() >= self.next_sweep {
            self.written.retain(|_, written| written.at + REMEMBERED_FOR > now);
            self.next_sweep = (self.written.len() * 2).max(FIRST_SWEEP);
        }
    }
}

impl Recorder {
    pub(crate) fn new(client: Client, reporter: Reporter) -> Self {
        Self { client, reporter, memory: Mutex::new(Memory::new()) }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an event about an object, or counts it when it is a repetition.
    pub(crate) async fn publish(&self, event: &Event, about: &ObjectReference) -> Result<(), kube::Error> {
        let namespace = about.namespace.as_deref().unwrap_or("default");
        let events: Api<EventObject> = Api::namespaced(self.client.clone(), namespace);
        let now = Timestamp::now();
        let key = Key {
            uid: about.uid.clone().unwrap_or_default(),
            is_warning: matches!(event.type_, EventType::Warning),
            action: event.action.clone(),
            reason: event.reason.clone(),
        };
        let known = self.memory().find(&key, now);
        if let Some(known) = known {
            let count = known.count.saturating_add(1);
            let patch = json!({"series": {"count": count, "lastObservedTime": MicroTime(now)}});
            match events.patch(&known.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => {
                    self.memory().note(key, Written { count, at: now, ..known });
                    return Ok(());
                }
                // Events have a short life; this one is told anew.
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let object = self.object(event, about, now);
        events.create(&PostParams::default(), &object).await?;
        self.memory().note(key, Written { name: object.name_any(), count: 1, at: now });
        Ok(())
    }

    fn object(&self, event: &Event, about: &ObjectReference, now: Timestamp) -> EventObject {
        let Reporter { controller, instance } = &self.reporter;
        let subject = about.name.as_deref().unwrap_or(controller);
        EventObject {
            metadata: ObjectMeta {
                namespace: about.namespace.clone(),
                name: Some(format!("{subject}.{:x}", now.as_nanosecond())),
                ..ObjectMeta::default()
            },
            action: Some(event.action.clone()),
            reason: Some(event.reason.clone()),
            note: event.note.clone(),
            type_: Some(
                if matches!(event.type_, EventType::Warning) { "Warning" } else { "Normal" }.to_owned(),
            ),
            event_time: Some(MicroTime(now)),
            regarding: Some(about.clone()),
            related: event.secondary.clone(),
            reporting_controller: Some(controller.clone()),
            reporting_instance: Some(instance.clone().unwrap_or_else(|| controller.clone())),
            ..EventObject::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn key(uid: &str) -> Key {
        let reason = "SuccessfulCreatePod".to_owned();
        Key { uid: uid.to_owned(), is_warning: false, action: reason.clone(), reason }
    }

    fn written(second: i64) -> Written {
        Written { name: "job.1f".to_owned(), count: 1, at: at(second) }
    }

    #[test]
    fn an_event_is_a_repetition_for_some_minutes() {
        let mut memory = Memory::new();
        memory.note(key("a"), written(0));
        assert_eq!(memory.find(&key("a"), at(359)), Some(written(0)));
        assert_eq!(memory.find(&key("a"), at(360)), None);
        assert_eq!(memory.find(&key("b"), at(1)), None);
        let warning = Key { is_warning: true, ..key("a") };
        assert_eq!(memory.find(&warning, at(1)), None);
    }

    #[test]
    fn old_events_are_forgotten_and_new_ones_kept() {
        let mut memory = Memory::new();
        for number in 1..FIRST_SWEEP {
            memory.note(key(&number.to_string()), written(0));
        }
        assert_eq!(memory.written.len(), FIRST_SWEEP - 1);
        memory.note(key("new"), written(1000));
        assert_eq!(memory.written.len(), 1);
        assert_eq!(memory.find(&key("new"), at(1001)), Some(written(1000)));
    }
}
