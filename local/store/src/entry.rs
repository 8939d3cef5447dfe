use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;

use crate::key::ObjectKey;

/// One version of one object, shared by all readers and watchers.
///
/// An entry keeps the encoded form, which is several times smaller than the parsed one, and when many writes of its
/// resource have come since, the compressed form, which is smaller again. The parsed form of the newest writes is kept by
/// the store; for any other entry [`Entry::object`] parses it anew.
#[derive(Debug)]
pub struct Entry {
    key: ObjectKey,
    revision: u64,
    create_revision: u64,
    size: usize,
    forms: Mutex<Forms>,
}

/// An object in its forms.
#[derive(Debug)]
struct Forms {
    text: Text,
    parsed: Weak<Value>,
}

/// The JSON of an object.
#[derive(Debug)]
enum Text {
    Plain(Bytes),
    /// Compressed by Snappy.
    Packed(Box<[u8]>),
}

impl Text {
    fn json(&self) -> Bytes {
        match self {
            Self::Plain(json) => json.clone(),
            // This process has packed it itself.
            Self::Packed(packed) => {
                snap::raw::Decoder::new().decompress_vec(packed).unwrap_or_default().into()
            }
        }
    }
}

impl Entry {
    /// `json` must be valid JSON that carries `revision` as its `metadata.resourceVersion`.
    pub(crate) fn new(key: ObjectKey, revision: u64, create_revision: u64, json: Bytes) -> Self {
        let size = json.len();
        let forms = Mutex::new(Forms { text: Text::Plain(json), parsed: Weak::new() });
        Self { key, revision, create_revision, size, forms }
    }

    /// Remembers the parsed form for as long as somebody else holds it.
    pub(crate) fn remember(&self, object: &Arc<Value>) {
        self.forms.lock().parsed = Arc::downgrade(object);
    }

    /// Compresses the object: hardly anybody will ask for it any more.
    pub(crate) fn pack(&self) {
        let mut forms = self.forms.lock();
        if let Text::Plain(json) = &forms.text
            && let Ok(packed) = snap::raw::Encoder::new().compress_vec(json)
        {
            forms.text = Text::Packed(packed.into_boxed_slice());
        }
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

    /// The length of the JSON in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The object as compact JSON with `metadata.resourceVersion` set; the bytes are shared, unless they are packed.
    pub fn json(&self) -> Bytes {
        self.forms.lock().text.json()
    }

    /// The object with `metadata.resourceVersion` set: shared while anybody holds it, else parsed.
    pub fn object(&self) -> Arc<Value> {
        let mut forms = self.forms.lock();
        if let Some(object) = forms.parsed.upgrade() {
            return object;
        }
        // The writer encoded these bytes itself, or opening the store checked them.
        let object = Arc::new(serde_json::from_slice(&forms.text.json()).unwrap_or_default());
        forms.parsed = Arc::downgrade(&object);
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_object_is_the_same_and_smaller() {
        let json = serde_json::json!({ "metadata": { "resourceVersion": "7" }, "list": vec!["word"; 100] });
        let entry = Entry::new(ObjectKey::new("core/pods", "a", "b"), 7, 7, json.to_string().into());
        let plain = entry.json();
        entry.pack();
        entry.pack();
        assert!(matches!(&entry.forms.lock().text, Text::Packed(packed) if packed.len() < plain.len() / 4));
        assert_eq!((entry.json(), entry.size()), (plain.clone(), plain.len()));
        assert_eq!(*entry.object(), json);
    }
}
