//! The kinds that are reconciled.

use kube::api::ApiResource;
use kube::core::GroupVersionKind;
use muster_trainer_api::names::{GROUP, VERSION};
use muster_trainer_core::{FieldError, Job, Kind, pytorch};
use serde_json::Value;

/// A training kind and how its objects become jobs.
#[derive(Debug, Clone, Copy)]
pub struct TrainingKind {
    /// Its data.
    pub kind: &'static Kind,
    /// Reads, checks and completes an object.
    pub read: fn(Value) -> Result<Job, Vec<FieldError>>,
}

/// Every kind this crate reconciles.
pub static KINDS: &[TrainingKind] = &[TrainingKind { kind: &pytorch::KIND, read: pytorch::read }];

impl TrainingKind {
    pub(crate) fn resource(&self) -> ApiResource {
        let kind = GroupVersionKind::gvk(GROUP, VERSION, self.kind.name);
        ApiResource::from_gvk_with_plural(&kind, self.kind.plural)
    }
}
