//! May they: role based access control.

use crate::app::Call;
use crate::status::{About, ApiError, ApiResult};

/// Refuses what no role allows.
pub(crate) fn authorize(call: &Call, verb: &str) -> ApiResult<()> {
    if call.user.is_master() {
        return Ok(());
    }
    let about = About {
        group: &call.resource.group,
        what: &call.resource.plural,
        name: call.path.name.as_deref().unwrap_or_default(),
    };
    let scope = match call.path.namespace.as_deref() {
        Some(namespace) => format!("in the namespace \"{namespace}\""),
        None => "at the cluster scope".to_owned(),
    };
    let resource = match &call.path.subresource {
        Some(subresource) => format!("{}/{subresource}", call.resource.plural),
        None => call.resource.plural.clone(),
    };
    let why = format!(
        "User \"{}\" cannot {verb} resource \"{resource}\" in API group \"{}\" {scope}",
        call.user.name, call.resource.group
    );
    Err(ApiError::forbidden(about, why))
}
