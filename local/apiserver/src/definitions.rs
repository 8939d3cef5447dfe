//! The definitions of custom resources as they were last read. A definition may be half a megabyte, and all of them
//! are looked at whenever one changes: each is read anew only when it is the one.

use std::collections::HashMap;
use std::sync::Arc;

use muster_schema::structural::CustomResource;
use muster_store::{Entry, Query};
use serde_json::Value;

use crate::app::App;
use crate::custom;
use crate::meta::{at, generation, is_deleting, meta};
use crate::registry::Resource;

/// Storage key of the definitions.
pub(crate) const DEFINITIONS: &str = "apiextensions.k8s.io/customresourcedefinitions";

/// The definitions of a server, by name.
#[derive(Debug, Default)]
pub(crate) struct Definitions(HashMap<Arc<str>, Definition>);

/// One definition.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    /// What it says.
    pub custom: Arc<CustomResource>,
    /// The resources of its served versions.
    pub resources: Arc<[Arc<Resource>]>,
    /// Its status.
    pub status: Value,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    revision: u64,
    spec: Spec,
}

/// Two states of a definition with the same of these have the same spec.
#[derive(Debug, Clone, PartialEq)]
struct Spec {
    uid: String,
    generation: i64,
}

impl Definitions {
    /// The definitions of now, the oldest first; those that cannot be read are left out.
    pub(crate) fn all(&mut self, app: &App) -> Vec<Definition> {
        let mut entries = app.store.list(&Query::new(DEFINITIONS)).entries;
        entries.sort_by_key(|entry| entry.create_revision());
        let mut last = std::mem::take(&mut self.0);
        for entry in &entries {
            let name = &entry.key().name;
            if let Some(definition) = read(entry, last.remove(name)) {
                self.0.insert(name.clone(), definition);
            }
        }
        entries.iter().filter_map(|entry| self.0.get(&entry.key().name).cloned()).collect()
    }
}

fn read(entry: &Entry, last: Option<Definition>) -> Option<Definition> {
    let last = match last {
        Some(last) if last.revision == entry.revision() => return Some(last),
        last => last,
    };
    let object = entry.object();
    let spec = Spec { uid: meta(&object, "uid").to_owned(), generation: generation(&object) };
    let (custom, resources) = match last {
        Some(last) if last.spec == spec => (last.custom, last.resources),
        _ => {
            let custom = CustomResource::parse(&object).ok()?;
            let served = custom.versions.iter().filter(|version| version.served);
            let resources = served.map(|version| Arc::new(custom::resource(&custom, version))).collect();
            (Arc::new(custom), resources)
        }
    };
    Some(Definition {
        custom,
        resources,
        status: at(&object, &["status"]).clone(),
        is_deleting: is_deleting(&object),
        revision: entry.revision(),
        spec,
    })
}
