//! What looks at other objects around a write: namespaces, service accounts, priorities, quotas, definitions.

pub(crate) mod addresses;
pub(crate) mod namespace;
pub(crate) mod pods;
pub(crate) mod quota;

use std::sync::Arc;

use serde_json::Value;

use crate::app::App;
use crate::custom;
use crate::meta::is_deleting;
use crate::objects::{Part, Scope};
use crate::registry::Resource;
use crate::status::ApiResult;

/// Runs the plugins that change a new object, in Kubernetes' order.
pub(crate) fn mutate_create(scope: &Scope<'_>, object: &mut Value) -> ApiResult<()> {
    if scope.resource.is("", "pods") {
        pods::service_account(scope, object)?;
        pods::tolerations(object);
        pods::priority(scope, object)?;
    } else if scope.resource.is("", "services") {
        addresses::assign(scope, object);
    } else if scope.resource.is("", "namespaces") {
        namespace::label(object);
    }
    Ok(())
}

/// Runs the plugins that change a replaced or patched object.
pub(crate) fn mutate_update(scope: &Scope<'_>, old: &Value, object: &mut Value, part: Part<'_>) {
    if scope.resource.is("", "pods") && part == Part::Main {
        pods::tolerations(object);
        pods::keep_priority(old, object);
    }
}

/// What has to follow a write before it is answered.
pub(crate) async fn after_write(app: &Arc<App>, resource: &Resource, object: &Value) -> ApiResult<()> {
    if resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
        custom::refresh(app).await?;
    } else if resource.is("", "namespaces") && !is_deleting(object) {
        namespace::furnish(app, crate::meta::meta(object, "name")).await?;
    }
    Ok(())
}
