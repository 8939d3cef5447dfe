use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;

use crate::key::ObjectKey;

/// One version of one object, shared by all readers and watchers.
///
/// An entry keeps the encoded form, which is several times smaller than the parsed one. The parsed form of the
/// newest writes is kept by the store; for any other entry [`Entry::object`] parses it anew.
#[derive(Debug)]
pub struct Entry {
    key: ObjectKey,
    revision: u64,
    create_revision: u64,
    json: Bytes,
    parsed: Mutex<Weak<Value>>,
}

impl Entry {
    /// `json` must be valid JSON that carries `revision` as its `metadata.resourceVersion`.
    pub(crate) fn new(key: ObjectKey, revision: u64, create_revision: u64, json: Bytes) -> Self {
        Self { key, revision, create_revision, json, parsed: Mutex::new(Weak::new()) }
    }

    /// Remembers the parsed form for as long as somebody else holds it.
    pub(crate) fn remember(&self, object: &Arc<Value>) {
        *self.parsed.lock() = Arc::downgrade(object);
    }

    /// Where the object lies.
    pub fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// The revision of the write that made this version; equals `metadata.resourceVersion`.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The revision of the write that created the object.
    pub fn create_revision(&self) -> u64 {
        self.create_revision
    }

    /// The object as compact JSON with `metadata.resourceVersion` set; cloning shares the bytes.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// The object with `metadata.resourceVersion` set: shared while anybody holds it, else parsed.
    pub fn object(&self) -> Arc<Value> {
        let mut parsed = self.parsed.lock();
        if let Some(object) = parsed.upgrade() {
            return object;
        }
        // The writer encoded these bytes itself, or opening the store checked them.
        let object = Arc::new(serde_json::from_slice(&self.json).unwrap_or_default());
        *parsed = Arc::downgrade(&object);
        object
    }
}
