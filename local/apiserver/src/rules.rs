//! Where the generic object life asks what a kind wants: decoding, defaults, validation, ownership of fields.

use serde_json::{Value, json};

use crate::meta::{at, finalizers, meta_mut, set_at, text};
use crate::app::Call;
use crate::objects::{DeleteOptions, Part, Scope, pod_finished, set_deletion};
use crate::registry::Resource;
use crate::request::{FieldValidation, WriteOptions};
use crate::respond::Reply;
use crate::status::{ApiError, ApiResult, Cause};

/// Kinds without a generation, although they have a spec or data.
const WITH_GENERATION: &[(&str, &str)] = &[
    ("", "pods"),
    ("apps", "daemonsets"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
    ("", "replicationcontrollers"),
    ("batch", "jobs"),
    ("batch", "cronjobs"),
    ("networking.k8s.io", "ingresses"),
    ("networking.k8s.io", "ingressclasses"),
    ("networking.k8s.io", "networkpolicies"),
    ("policy", "poddisruptionbudgets"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings"),
    ("discovery.k8s.io", "endpointslices"),
    ("scheduling.k8s.io", "priorityclasses"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "resourceslices"),
];

/// Whether objects of the resource count the changes of their spec.
pub(crate) fn has_generation(resource: &Resource) -> bool {
    resource.custom.is_some()
        || WITH_GENERATION.contains(&(resource.group.as_str(), resource.plural.as_str()))
}

/// Whether anything but metadata and status changed.
pub(crate) fn spec_changed(resource: &Resource, old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return true };
    let own = |key: &&String| *key != "metadata" && !(*key == "status" && resource.has_status());
    old.keys().chain(new.keys()).filter(own).any(|key| old.get(key) != new.get(key))
}

/// Converts an event into the form of that API version.
pub(crate) fn convert_event(api_version: &str, object: &mut Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert("kind".into(), "Event".into());
    }
    let _ = api_version;
    if let Some(fields) = object.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
}

/// Checks the type that a body names against the path, filling it in where it is missing.
pub(crate) fn check_type(resource: &Resource, object: &mut Value) -> ApiResult<()> {
    let kind = &resource.kind;
    let wanted = resource.api_version();
    let Some(fields) = object.as_object_mut() else {
        let why = "json: cannot unmarshal array into Go value of type struct";
        return Err(ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse \
             error: {why}"
        )));
    };
    let given = |key: &str| fields.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (given_version, given_kind) = (given("apiVersion").map(str::to_owned), given("kind").map(str::to_owned));
    if let Some(other) = given_version.as_ref().filter(|given| **given != wanted) {
        let version = other.rsplit('/').next().unwrap_or(other);
        let shown = given_kind.as_deref().unwrap_or(kind);
        if resource.custom.is_some() {
            let why = format!(
                "the API version in the data ({other}) does not match the expected API version ({wanted})"
            );
            return Err(ApiError::bad_request(why));
        }
        let why = format!(
            "{shown} in version \"{version}\" cannot be handled as a {kind}: no kind \"{shown}\" is registered for version \
             \"{other}\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        );
        return Err(ApiError::bad_request(why));
    }
    if let Some(other) = given_kind.as_ref().filter(|given| *given != kind) {
        let version = &resource.version;
        let why = format!(
            "{other} in version \"{version}\" cannot be handled as a {kind}: converting ({}.{other}) to ({}.{kind}): \
             unknown conversion",
            scheme_name(&resource.group, version),
            if resource.group.is_empty() { "core" } else { resource.group.split('.').next().unwrap_or_default() },
        );
        return Err(ApiError::bad_request(why));
    }
    fields.insert("apiVersion".into(), wanted.into());
    fields.insert("kind".into(), kind.clone().into());
    Ok(())
}

fn scheme_name<'a>(_group: &str, version: &'a str) -> &'a str {
    version
}

/// Fills in defaults.
pub(crate) fn default_object(_resource: &Resource, _object: &mut Value) {}

/// Sets what only the server sets at creation.
pub(crate) fn prepare_create(resource: &Resource, object: &mut Value) {
    if resource.is("", "namespaces") {
        set_at(object, &["status"], Some(json!({ "phase": "Active" })));
        set_at(object, &["spec"], Some(json!({ "finalizers": ["kubernetes"] })));
    }
    if resource.is("", "pods") {
        set_at(object, &["status"], Some(json!({ "phase": "Pending" })));
    }
}

/// Sets what only the server sets at a change.
pub(crate) fn prepare_update(_resource: &Resource, _old: &Value, _new: &mut Value) {}

/// Kinds whose status clients may give at creation.
pub(crate) fn keeps_status_on_create(resource: &Resource) -> bool {
    resource.is("", "nodes")
}

/// Field errors of a new object.
pub(crate) fn validate_create(resource: &Resource, object: &Value) -> Vec<Cause> {
    let _ = resource;
    if text(object, &["metadata", "name"]).is_empty() {
        return vec![Cause::required("metadata.name", "name or generateName is required")];
    }
    Vec::new()
}

/// Field errors of a changed object.
pub(crate) fn validate_update(_resource: &Resource, _old: &Value, _new: &Value, _part: Part<'_>) -> Vec<Cause> {
    Vec::new()
}

/// Writes down who owns which fields.
pub(crate) fn manage_fields(_scope: &Scope<'_>, _old: Option<&Value>, _new: &mut Value, _part: Part<'_>) {}

/// Takes back everything that a write to the subresource may not change.
pub(crate) fn restrict(resource: &Resource, subresource: &str, old: &Value, new: &mut Value) {
    let (Some(old_fields), Some(new_fields)) = (old.as_object(), new.as_object()) else { return };
    let mut result = old_fields.clone();
    let take = |result: &mut serde_json::Map<String, Value>, key: &str| match new_fields.get(key) {
        Some(value) => result.insert(key.to_owned(), value.clone()),
        None => result.remove(key),
    };
    match subresource {
        "status" | "approval" => {
            take(&mut result, "status");
            if resource.custom.is_none() {
                take(&mut result, "metadata");
            }
        }
        "finalize" => {
            take(&mut result, "spec");
            take(&mut result, "metadata");
        }
        "ephemeralcontainers" => {
            let containers = at(new, &["spec", "ephemeralContainers"]).clone();
            let mut value = Value::Object(result);
            set_at(&mut value, &["spec", "ephemeralContainers"], (!containers.is_null()).then_some(containers));
            *new = value;
            return;
        }
        _ => {
            take(&mut result, "spec");
            take(&mut result, "metadata");
        }
    }
    *new = Value::Object(result);
}

/// Whether an object that is being deleted stays even without finalizers in its metadata.
pub(crate) fn waits_for_more_than_finalizers(resource: &Resource, object: &Value) -> bool {
    resource.is("", "namespaces") && at(object, &["spec", "finalizers"]).as_array().is_some_and(|list| !list.is_empty())
}

/// The state of an object after a deletion was asked for, and whether it is gone with it.
pub(crate) fn mark_deleted(resource: &Resource, old: &Value, options: &DeleteOptions) -> (Value, bool) {
    let mut new = old.clone();
    let mut wanted: Vec<String> = finalizers(old).into_iter().map(str::to_owned).collect();
    if let Some(policy) = options.propagation.as_deref() {
        wanted.retain(|finalizer| finalizer != "foregroundDeletion" && finalizer != "orphan");
        match policy {
            "Foreground" => wanted.push("foregroundDeletion".into()),
            "Orphan" => wanted.push("orphan".into()),
            _ => {}
        }
    }
    let held = !wanted.is_empty();
    set_at(&mut new, &["metadata", "finalizers"], held.then(|| json!(wanted)));
    if resource.is("", "namespaces") {
        let waits = held || waits_for_more_than_finalizers(resource, old);
        if waits && !crate::meta::is_deleting(old) {
            set_deletion(&mut new, 0);
            meta_mut(&mut new).remove("deletionGracePeriodSeconds");
            set_at(&mut new, &["status", "phase"], Some("Terminating".into()));
        }
        return (new, !waits);
    }
    if resource.is("", "pods") {
        let grace = pod_grace(old, options);
        let running = crate::meta::is_deleting(old)
            .then(|| at(old, &["metadata", "deletionGracePeriodSeconds"]).as_i64().unwrap_or(0));
        if running.is_none_or(|left| grace < left) {
            set_deletion(&mut new, grace);
        }
        let left = at(&new, &["metadata", "deletionGracePeriodSeconds"]).as_i64().unwrap_or(0);
        return (new, left == 0 && !held);
    }
    if held {
        if !crate::meta::is_deleting(old) {
            set_deletion(&mut new, 0);
        }
        return (new, false);
    }
    (new, true)
}

/// Seconds that a pod gets: none when no node runs it.
fn pod_grace(pod: &Value, options: &DeleteOptions) -> i64 {
    let own = at(pod, &["spec", "terminationGracePeriodSeconds"]).as_i64().unwrap_or(30);
    let asked = options.grace_period_seconds.unwrap_or(own).max(0);
    if text(pod, &["spec", "nodeName"]).is_empty() || pod_finished(pod) { 0 } else { asked }
}

/// Resources whose deletion answers with the object instead of a `Status`.
pub(crate) fn answers_with_object(resource: &Resource) -> bool {
    let core = [
        "pods", "services", "persistentvolumes", "persistentvolumeclaims", "serviceaccounts", "resourcequotas",
        "podtemplates",
    ];
    (resource.group.is_empty() && core.contains(&resource.plural.as_str()))
        || (resource.group == "storage.k8s.io" && resource.custom.is_none())
}

/// Checks a decoded body against the kind's fields; returns warnings.
pub(crate) fn decode(
    resource: &Resource,
    _headers: &http::HeaderMap,
    _body: &bytes::Bytes,
    object: &mut Value,
    validation: FieldValidation,
) -> ApiResult<Vec<String>> {
    decode_value(resource, object, validation)
}

/// Checks an object against the kind's fields; returns warnings.
pub(crate) fn decode_value(
    _resource: &Resource,
    _object: &mut Value,
    _validation: FieldValidation,
) -> ApiResult<Vec<String>> {
    Ok(Vec::new())
}

/// Applies a JSON patch.
pub(crate) fn json_patch(object: &mut Value, patch: &[u8]) -> ApiResult<()> {
    let operations: Vec<Value> = serde_json::from_slice(patch)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    for operation in operations {
        let absent = operation["op"] == "test" && operation["value"].is_null();
        if absent && operation["path"].as_str().is_some_and(|path| object.pointer(path).is_none()) {
            continue;
        }
        let one: json_patch::Patch = serde_json::from_value(json!([operation])).map_err(|_| ApiError::unprocessable_patch())?;
        json_patch::patch(object, &one).map_err(|_| ApiError::unprocessable_patch())?;
    }
    Ok(())
}

/// Applies a JSON merge patch.
pub(crate) fn merge_patch(object: &mut Value, patch: &[u8]) -> ApiResult<()> {
    let patch: Value = serde_json::from_slice(patch)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    if !patch.is_object() {
        let why = "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}";
        return Err(ApiError::bad_request(why));
    }
    json_patch::merge(object, &patch);
    Ok(())
}

/// Applies a strategic merge patch.
pub(crate) fn strategic_patch(_resource: &Resource, object: &Value, patch: &Value) -> ApiResult<Value> {
    let mut object = object.clone();
    json_patch::merge(&mut object, patch);
    Ok(object)
}

/// Server-side apply.
pub(crate) async fn apply(
    call: &mut Call,
    name: &str,
    part: Part<'_>,
    options: &WriteOptions,
    applied: Value,
) -> ApiResult<Reply> {
    let mut warnings = Vec::new();
    let call_ref: &Call = call;
    let exists = crate::read::find(call_ref).is_ok();
    let mut scope = crate::patching::apply_scope(call_ref, options, &mut warnings);
    let (code, written) = if exists {
        let change = &mut |current: &Value| {
            let mut object = current.clone();
            json_patch::merge(&mut object, &applied);
            Ok(object)
        };
        (200, scope.modify(name, part, change).await?)
    } else {
        (201, scope.create(applied).await?)
    };
    Ok(crate::change::written(call, code, &written))
}
