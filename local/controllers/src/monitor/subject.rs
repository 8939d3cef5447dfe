use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::catalogue::Kind;
use crate::informer::Key;

/// Finalizer of an object whose deletion waits for its dependents.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object whose dependents are to survive it.
pub(crate) const ORPHAN: &str = "orphan";

/// What the garbage collector knows of an object.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// Its kind.
    pub kind: Arc<Kind>,
    /// Where it lies.
    pub key: Key,
    /// Its identity.
    pub uid: String,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
    /// Somebody deleted it.
    pub deleting: bool,
    /// Its deletion waits for its dependents.
    pub foreground: bool,
    /// Its dependents are to survive it.
    pub orphan: bool,
}

impl Subject {
    pub(crate) fn new(kind: &Arc<Kind>, meta: &ObjectMeta) -> Self {
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|own| own == finalizer);
        Self {
            kind: kind.clone(),
            key: Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default()),
            uid: meta.uid.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            foreground: has(FOREGROUND),
            orphan: has(ORPHAN),
        }
    }

    /// Being deleted, and waiting for its dependents.
    pub(crate) fn awaits_dependents(&self) -> bool {
        self.deleting && self.foreground
    }

    /// The dependent waits for nothing but blocks this owner's foreground deletion.
    pub(crate) fn blocks(&self, owner: &str) -> bool {
        self.owners
            .iter()
            .any(|reference| reference.uid == owner && reference.block_owner_deletion == Some(true))
    }
}
