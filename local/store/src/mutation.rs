//! What is asked of the store, and how it is checked and given its revision before it goes to the log.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::entry::Entry;
use crate::error::Error;
use crate::key::ObjectKey;
use crate::log::{Record, RecordKind};
use crate::state::{Change, State};

/// One change of one object, with what it requires of the object's present state.
#[derive(Debug, Clone)]
pub enum Mutation {
    /// Creates the object; fails with [`Error::AlreadyExists`].
    Create {
        /// Where.
        key: ObjectKey,
        /// The object.
        object: Value,
    },
    /// Replaces the object; fails with [`Error::NotFound`] or [`Error::Conflict`].
    Update {
        /// Which.
        key: ObjectKey,
        /// The revision it must be at.
        expected_revision: u64,
        /// Its new state.
        object: Value,
    },
    /// Deletes the object; fails with [`Error::NotFound`] or [`Error::Conflict`].
    Delete {
        /// Which.
        key: ObjectKey,
        /// The revision it must be at.
        expected_revision: u64,
        /// The last state that watchers see; none leaves the present one.
        last: Option<Value>,
    },
}

impl Mutation {
    fn key(&self) -> &ObjectKey {
        match self {
            Self::Create { key, .. } | Self::Update { key, .. } | Self::Delete { key, .. } => key,
        }
    }
}

/// What a batch has gathered so far on top of the state that readers see.
pub(crate) struct Batch {
    pub(crate) records: Vec<Record>,
    pub(crate) changes: Vec<Change>,
    pub(crate) parsed: Vec<Arc<Value>>,
    overlay: HashMap<ObjectKey, Option<Arc<Entry>>>,
    object_bytes: usize,
}

impl Batch {
    /// An empty batch that takes objects of up to `object_bytes` of JSON.
    pub(crate) fn new(object_bytes: usize) -> Self {
        let (records, changes, parsed) = (Vec::new(), Vec::new(), Vec::new());
        Self { records, changes, parsed, overlay: HashMap::new(), object_bytes }
    }

    /// Adds a transaction to the batch, or leaves the batch as it was.
    pub(crate) fn accept(
        &mut self,
        state: &State,
        mutations: Vec<Mutation>,
    ) -> Result<Vec<Arc<Entry>>, Error> {
        let base = state.revision();
        let kept = self.records.len();
        let mut undo: Vec<(ObjectKey, Option<Option<Arc<Entry>>>)> = Vec::new();
        let mut entries = Vec::with_capacity(mutations.len());
        for mutation in mutations {
            let current = match self.overlay.get(mutation.key()) {
                Some(pending) => pending.clone(),
                None => state.get(mutation.key()).cloned(),
            };
            let key = match &current {
                Some(current) => current.key().clone(),
                None => state.share(mutation.key().clone()),
            };
            let revision = base + self.records.len() as u64 + 1;
            match prepare(key.clone(), mutation, current.as_ref(), revision, self.object_bytes) {
                Ok((record, change, object)) => {
                    let visible = (!change.deleted).then(|| change.entry.clone());
                    undo.push((key.clone(), self.overlay.insert(key, visible)));
                    entries.push(change.entry.clone());
                    self.records.push(record);
                    self.changes.push(change);
                    self.parsed.push(object);
                }
                Err(error) => {
                    self.records.truncate(kept);
                    self.changes.truncate(kept);
                    self.parsed.truncate(kept);
                    for (key, before) in undo.into_iter().rev() {
                        match before {
                            Some(before) => self.overlay.insert(key, before),
                            None => self.overlay.remove(&key),
                        };
                    }
                    return Err(error);
                }
            }
        }
        Ok(entries)
    }
}

/// Checks one mutation against the object's present state and gives it its revision.
fn prepare(
    key: ObjectKey,
    mutation: Mutation,
    current: Option<&Arc<Entry>>,
    revision: u64,
    limit: usize,
) -> Result<(Record, Change, Arc<Value>), Error> {
    let (kind, object) = match mutation {
        Mutation::Create { object, .. } => match current {
            None => (RecordKind::Put, object),
            Some(current) => return Err(Error::AlreadyExists { key, revision: current.revision() }),
        },
        Mutation::Update { expected_revision, object, .. } => {
            require(&key, current, expected_revision)?;
            (RecordKind::Put, object)
        }
        Mutation::Delete { expected_revision, last, .. } => {
            let current = require(&key, current, expected_revision)?;
            (RecordKind::Delete, last.unwrap_or_else(|| Arc::unwrap_or_clone(current.object())))
        }
    };
    let create_revision = current.map_or(revision, |current| current.create_revision());
    let (json, object) = encode(&key, object, revision)?;
    if kind == RecordKind::Put && json.len() > limit {
        return Err(Error::TooLarge { key, size: json.len(), limit });
    }
    let entry = Arc::new(Entry::new(key.clone(), revision, create_revision, json.clone()));
    entry.remember(&object);
    let previous_revision = current.map(|current| current.revision());
    let record = Record { revision, key, kind, create_revision, previous_revision, json };
    Ok((record, Change { entry, deleted: kind == RecordKind::Delete }, object))
}

fn require<'a>(
    key: &ObjectKey,
    current: Option<&'a Arc<Entry>>,
    expected: u64,
) -> Result<&'a Arc<Entry>, Error> {
    let current = current.ok_or_else(|| Error::NotFound { key: key.clone() })?;
    if current.revision() == expected {
        Ok(current)
    } else {
        Err(Error::Conflict { key: key.clone(), expected, actual: current.revision() })
    }
}

/// Sets `metadata.resourceVersion` and encodes.
fn encode(key: &ObjectKey, mut object: Value, revision: u64) -> Result<(Bytes, Arc<Value>), Error> {
    let metadata = object.as_object_mut().and_then(|object| {
        object.entry("metadata").or_insert_with(|| Value::Object(serde_json::Map::new())).as_object_mut()
    });
    let Some(metadata) = metadata else { return Err(Error::NotAnObject { key: key.clone() }) };
    metadata.insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
    let json = serde_json::to_vec(&object)
        .map_err(|error| Error::Encode { key: key.clone(), reason: error.to_string().into() })?;
    Ok((json.into_boxed_slice().into(), Arc::new(object)))
}
