//! Kubernetes `Status` answers: every refusal of the server is one of these.

use std::fmt;

use serde_json::{Map, Value, json};

/// One entry of `details.causes`: a field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    /// Machine-readable reason, such as `FieldValueInvalid`.
    pub reason: &'static str,
    /// What is wrong, without the field.
    pub message: String,
    /// Path of the field.
    pub field: String,
}

impl Cause {
    /// A field whose value is wrong; `shown` is the value as Kubernetes prints it.
    pub(crate) fn invalid(
        field: impl Into<String>,
        shown: impl fmt::Display,
        why: impl fmt::Display,
    ) -> Self {
        let message = format!("Invalid value: {shown}: {why}");
        Self { reason: "FieldValueInvalid", message, field: field.into() }
    }

    /// A field that has to be set.
    pub(crate) fn required(field: impl Into<String>, why: &str) -> Self {
        let message = if why.is_empty() { "Required value".into() } else { format!("Required value: {why}") };
        Self { reason: "FieldValueRequired", message, field: field.into() }
    }

    /// A field that may not be set (that way).
    pub(crate) fn forbidden(field: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { reason: "FieldValueForbidden", message: format!("Forbidden: {why}"), field: field.into() }
    }

    /// A value outside of a closed list.
    pub(crate) fn not_supported(
        field: impl Into<String>,
        shown: impl fmt::Display,
        supported: &[&str],
    ) -> Self {
        let list = supported.iter().map(|value| format!("\"{value}\"")).collect::<Vec<_>>().join(", ");
        let message = format!("Unsupported value: {shown}: supported values: {list}");
        Self { reason: "FieldValueNotSupported", message, field: field.into() }
    }
}

/// A refusal that is sent to the client as a `Status` object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    /// HTTP status.
    pub code: u16,
    /// Kubernetes reason, empty when there is none.
    pub reason: &'static str,
    /// Text for people.
    pub message: String,
    /// `details`, when there are any.
    pub details: Option<Value>,
    /// Seconds after which the client may try again.
    pub retry_after: Option<u32>,
}

impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}: {}", self.code, self.reason, self.message)
    }
}

impl std::error::Error for ApiError {}

/// The answer of a handler.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

/// What a `Status` is about: a resource (plural) or a kind, and its group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    /// API group, empty for the core group.
    pub group: &'a str,
    /// Plural resource name, or kind where Kubernetes names the kind.
    pub what: &'a str,
    /// Object name, empty for none.
    pub name: &'a str,
}

impl About<'_> {
    fn qualified(&self) -> String {
        if self.group.is_empty() { self.what.to_owned() } else { format!("{}.{}", self.what, self.group) }
    }

    fn details(&self) -> Map<String, Value> {
        let mut details = Map::new();
        if !self.name.is_empty() {
            details.insert("name".into(), self.name.into());
        }
        if !self.group.is_empty() {
            details.insert("group".into(), self.group.into());
        }
        if !self.what.is_empty() {
            details.insert("kind".into(), self.what.into());
        }
        details
    }
}

fn causes_value(causes: &[Cause]) -> Value {
    let entries = causes.iter().map(|cause| {
        let mut entry = Map::new();
        entry.insert("reason".into(), cause.reason.into());
        entry.insert("message".into(), cause.message.clone().into());
        if !cause.field.is_empty() {
            entry.insert("field".into(), cause.field.clone().into());
        }
        Value::Object(entry)
    });
    Value::Array(entries.collect())
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>, details: Option<Value>) -> Self {
        Self { code, reason, message: message.into(), details, retry_after: None }
    }

    /// 400: the request itself is malformed.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message, None)
    }

    /// 401: the credentials are missing or wrong.
    pub(crate) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized", None)
    }

    /// 403 about an object: `pods "x" is forbidden: why`.
    pub(crate) fn forbidden(about: About<'_>, why: impl fmt::Display) -> Self {
        let message = if about.name.is_empty() {
            format!("{} is forbidden: {why}", about.qualified())
        } else {
            format!("{} \"{}\" is forbidden: {why}", about.qualified(), about.name)
        };
        Self::new(403, "Forbidden", message, Some(Value::Object(about.details())))
    }

    /// 404 about an object.
    pub(crate) fn not_found(about: About<'_>) -> Self {
        let message = format!("{} \"{}\" not found", about.qualified(), about.name);
        Self::new(404, "NotFound", message, Some(Value::Object(about.details())))
    }

    /// 404 for a path that serves nothing.
    pub(crate) fn no_such_resource() -> Self {
        let message = "the server could not find the requested resource";
        Self::new(404, "NotFound", message, Some(json!({})))
    }

    /// 405: the verb does not exist on the resource.
    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message, Some(json!({})))
    }

    /// 406: no representation the client accepts.
    pub(crate) fn not_acceptable() -> Self {
        let message = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, \
                       application/vnd.kubernetes.protobuf";
        Self::new(406, "NotAcceptable", message, Some(json!({})))
    }

    /// 409: the name is taken.
    pub(crate) fn already_exists(about: About<'_>) -> Self {
        let message = format!("{} \"{}\" already exists", about.qualified(), about.name);
        Self::new(409, "AlreadyExists", message, Some(Value::Object(about.details())))
    }

    /// 409 with Kubernetes' reason `Conflict`.
    pub(crate) fn conflict(about: About<'_>, why: impl fmt::Display) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} \"{}\": {why}", about.qualified(), about.name);
        Self::new(409, "Conflict", message, Some(Value::Object(about.details())))
    }

    /// 409: somebody else wrote the object in between.
    pub(crate) fn modified(about: About<'_>) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(about, why)
    }

    /// 409: server-side apply met fields of other managers.
    pub(crate) fn apply_conflict(message: String, causes: &[Cause]) -> Self {
        Self::new(409, "Conflict", message, Some(json!({ "causes": causes_value(causes) })))
    }

    /// 410: the revision or continue token is older than what is kept.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message, None)
    }

    /// 413: the body is larger than the server reads.
    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(413, "RequestEntityTooLarge", message, None)
    }

    /// 415: a body in a format that the request does not take.
    pub(crate) fn unsupported_media(accepted: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Self::new(415, "UnsupportedMediaType", message, None)
    }

    /// 415 of a patch without a patch type.
    pub(crate) fn unsupported_patch() -> Self {
        Self::new(415, "UnsupportedMediaType", "415: Unsupported Media Type", Some(json!({})))
    }

    /// 422: fields of the object (`about.what` is its kind) are wrong.
    pub(crate) fn invalid(about: About<'_>, causes: &[Cause]) -> Self {
        let mut seen = Vec::new();
        for cause in causes {
            let text = if cause.field.is_empty() {
                cause.message.clone()
            } else {
                format!("{}: {}", cause.field, cause.message)
            };
            if !seen.contains(&text) {
                seen.push(text);
            }
        }
        let list = if seen.len() == 1 { seen.remove(0) } else { format!("[{}]", seen.join(", ")) };
        let message = format!("{} \"{}\" is invalid: {list}", about.qualified(), about.name);
        let mut details = about.details();
        details.insert("causes".into(), causes_value(causes));
        Self::new(422, "Invalid", message, Some(Value::Object(details)))
    }

    /// 422 of a patch that cannot be carried out.
    pub(crate) fn unprocessable_patch() -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self::new(422, "Invalid", message, Some(json!({})))
    }

    /// 422 about the query or body options, such as `ListOptions`.
    pub(crate) fn invalid_options(kind: &str, causes: &[Cause]) -> Self {
        Self::invalid(About { group: "meta.k8s.io", what: kind, name: "" }, causes)
    }

    /// 429: an eviction that a disruption budget holds back.
    pub(crate) fn too_many_requests(message: impl Into<String>, causes: &[Cause]) -> Self {
        let details = json!({ "causes": causes_value(causes) });
        Self::new(429, "TooManyRequests", message, Some(details))
    }

    /// 500 without a reason.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "", message, None)
    }

    /// 500 with the reason `InternalError`.
    pub(crate) fn internal_error(why: impl fmt::Display) -> Self {
        let message = format!("Internal error occurred: {why}");
        let details = json!({ "causes": [{ "message": why.to_string() }] });
        Self::new(500, "InternalError", message, Some(details))
    }

    /// 503: a part the request needs is not there (now).
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message, None)
    }

    /// 507: the disk has no room.
    pub(crate) fn insufficient_storage(why: impl fmt::Display) -> Self {
        Self { code: 507, ..Self::internal_error(why) }
    }

    /// 504: the request ran past its deadline.
    pub(crate) fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", message, Some(json!({})))
    }

    /// 504: the asked revision lies in the future.
    pub(crate) fn revision_too_large(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let causes =
            json!([{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }]);
        let details = json!({ "causes": causes, "retryAfterSeconds": 1 });
        Self { retry_after: Some(1), ..Self::new(504, "Timeout", message, Some(details)) }
    }

    /// Adds a cause to the details.
    #[must_use]
    pub(crate) fn with_causes(mut self, causes: &[Cause]) -> Self {
        let details = self.details.get_or_insert_with(|| json!({}));
        if let Some(details) = details.as_object_mut() {
            details.insert("causes".into(), causes_value(causes));
        }
        self
    }

    /// The `Status` object.
    pub(crate) fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if let Some(object) = status.as_object_mut() {
            if !self.reason.is_empty() {
                object.insert("reason".into(), self.reason.into());
            }
            if let Some(details) = &self.details {
                object.insert("details".into(), details.clone());
            }
        }
        status
    }
}

/// The `Success` status that deletions and bindings answer with.
pub(crate) fn success(code: Option<u16>, details: Option<Value>) -> Value {
    let mut status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" });
    if let Some(object) = status.as_object_mut() {
        if let Some(details) = details {
            object.insert("details".into(), details);
        }
        if let Some(code) = code {
            object.insert("code".into(), code.into());
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_causes_are_listed_in_brackets_and_one_is_not() {
        let about = About { group: "apps", what: "Deployment", name: "bad" };
        let one = ApiError::invalid(about, &[Cause::required("spec.a", "")]);
        assert_eq!(one.message, "Deployment.apps \"bad\" is invalid: spec.a: Required value");
        let two =
            ApiError::invalid(about, &[Cause::required("spec.a", ""), Cause::forbidden("spec.b", "no")]);
        let expected = "Deployment.apps \"bad\" is invalid: [spec.a: Required value, spec.b: Forbidden: no]";
        assert_eq!(two.message, expected);
        assert_eq!(two.to_value()["details"]["causes"][1]["reason"], "FieldValueForbidden");
    }

    #[test]
    fn core_objects_have_no_group_in_details() {
        let error = ApiError::not_found(About { group: "", what: "pods", name: "x" });
        assert_eq!(error.to_value()["details"], json!({ "name": "x", "kind": "pods" }));
    }
}
