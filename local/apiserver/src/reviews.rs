//! Requests that are answered at once and never stored: reviews of access and identity.

use serde_json::json;

use crate::app::Call;
use crate::body;
use crate::meta::{now, object_at};
use crate::respond::{self, Reply};
use crate::rules;
use crate::status::{ApiError, ApiResult};

/// `POST` of a review.
pub(crate) async fn create(call: &mut Call) -> ApiResult<Reply> {
    let (mut object, _) = body::object(call, &call.resource.kind, &call.resource.api_version())?;
    rules::check_type(&call.resource, &mut object)?;
    match call.resource.plural.as_str() {
        "selfsubjectreviews" => {
            object_at(&mut object, "metadata").insert("creationTimestamp".into(), now().into());
            object["status"] = json!({ "userInfo": call.user.to_value() });
        }
        "selfsubjectaccessreviews" => {
            object_at(&mut object, "metadata");
            object["status"] = json!({ "allowed": call.user.is_master() });
        }
        _ => return Err(ApiError::method_not_allowed()),
    }
    Ok(respond::value(201, call.accepted.encoding, &object))
}
