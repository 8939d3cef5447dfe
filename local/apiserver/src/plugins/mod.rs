//! What looks at other objects before a write: namespaces, service accounts, priorities, quotas.

pub(crate) mod namespace;
pub(crate) mod quota;

use serde_json::Value;

use crate::objects::Scope;
use crate::status::ApiResult;

/// Runs the plugins that change a new object, in Kubernetes' order.
pub(crate) async fn mutate_create(_scope: &mut Scope<'_>, _object: &mut Value) -> ApiResult<()> {
    Ok(())
}

/// Runs the plugins that change or refuse a changed object.
pub(crate) fn mutate_update(_scope: &mut Scope<'_>, _old: &Value, _new: &mut Value) -> ApiResult<()> {
    Ok(())
}
