//! Namespace lifecycle: nothing is created in a namespace that is missing or ends; three can never end.

use muster_store::ObjectKey;
use serde_json::Value;

use crate::meta::{is_deleting, meta};
use crate::objects::Scope;
use crate::status::{About, ApiError, ApiResult, Cause};

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Refuses creations in missing and ending namespaces.
pub(crate) fn check_create(scope: &Scope<'_>, object: &Value) -> ApiResult<()> {
    if !scope.resource.namespaced {
        return Ok(());
    }
    let name = scope.namespace;
    let Some(entry) = scope.app.store.get(&ObjectKey::new("core/namespaces", "", name)) else {
        return Err(ApiError::not_found(About { group: "", what: "namespaces", name }));
    };
    if !is_deleting(&entry.object()) {
        return Ok(());
    }
    let about = About { group: &scope.resource.group, what: &scope.resource.plural, name: meta(object, "name") };
    let why = format!("unable to create new content in namespace {name} because it is being terminated");
    let cause = Cause {
        reason: "NamespaceTerminating",
        message: format!("namespace {name} is being terminated"),
        field: "metadata.namespace".into(),
    };
    Err(ApiError::forbidden(about, why).with_causes(&[cause]))
}

/// Refuses the end of the namespaces that the cluster itself needs.
pub(crate) fn check_delete(scope: &Scope<'_>, name: &str) -> ApiResult<()> {
    if scope.resource.is("", "namespaces") && IMMORTAL.contains(&name) {
        let about = About { group: "", what: "namespaces", name };
        return Err(ApiError::forbidden(about, "this namespace may not be deleted"));
    }
    Ok(())
}
