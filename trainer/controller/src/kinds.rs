//! The kinds that are reconciled.

use kube::api::ApiResource;
use kube::core::GroupVersionKind;
use muster_trainer_api::names::{GROUP, VERSION};
use muster_trainer_core::Kind;

/// Where the API server has the objects of a kind.
pub(crate) fn resource(kind: &Kind) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, kind.name), kind.plural)
}
