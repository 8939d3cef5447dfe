//! `/scale`: the number of replicas of whatever has one.

use serde_json::{Value, json};

use crate::app::Call;
use crate::body;
use crate::change::scope;
use crate::meta::{at, meta, meta_mut, set_at};
use crate::objects::{Ownership, Part, Scope, Written, with_type};
use crate::patching::Patch;
use crate::read;
use crate::request::WriteOptions;
use crate::respond::{self, Reply};
use crate::rules;
use crate::status::{About, ApiError, ApiResult, Cause};

const PART: Part<'static> = Part::Subresource("scale");

/// Where the numbers lie in the object.
struct Paths {
    spec: Vec<String>,
    status: Vec<String>,
    selector: Option<Vec<String>>,
}

fn path(text: &str) -> Vec<String> {
    text.trim_start_matches('.').split('.').map(str::to_owned).collect()
}

impl Paths {
    fn of(call: &Call) -> Self {
        match call.resource.custom.as_ref().and_then(|custom| custom.version.subresources.scale.as_ref()) {
            Some(scale) => Self {
                spec: path(&scale.spec_replicas),
                status: path(&scale.status_replicas),
                selector: scale.label_selector.as_deref().map(path),
            },
            None => Self { spec: path(".spec.replicas"), status: path(".status.replicas"), selector: None },
        }
    }
}

fn look<'a>(object: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(object, |value, key| value.get(key).unwrap_or(&Value::Null))
}

/// The `Scale` of an object.
fn scale(call: &Call, object: &Value) -> Value {
    let paths = Paths::of(call);
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = at(object, &["metadata"]).get(field) {
            metadata[field] = value.clone();
        }
    }
    let mut spec = json!({});
    if let Some(replicas) = look(object, &paths.spec).as_i64().filter(|replicas| *replicas != 0) {
        spec["replicas"] = replicas.into();
    }
    let mut status = json!({ "replicas": look(object, &paths.status).as_i64().unwrap_or(0) });
    let selector = match &paths.selector {
        Some(path) => look(object, path).as_str().map(str::to_owned),
        None => selector_text(at(object, &["spec", "selector"])),
    };
    if let Some(selector) = selector.filter(|selector| !selector.is_empty()) {
        status["selector"] = selector.into();
    }
    json!({ "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status })
}

/// A label selector in its query form.
fn selector_text(selector: &Value) -> Option<String> {
    let labels = selector.get("matchLabels").map_or(selector, |labels| labels).as_object()?;
    let mut terms: Vec<String> = labels
        .iter()
        .filter_map(|(key, value)| value.as_str().map(|value| format!("{key}={value}")))
        .collect();
    for expression in at(selector, &["matchExpressions"]).as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let mut values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        values.sort_unstable();
        terms.push(match expression["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.sort_unstable();
    Some(terms.join(","))
}

/// Answers a request for `/scale`.
pub(crate) async fn answer(call: &mut Call, verb: &str) -> ApiResult<Reply> {
    let encoding = call.accepted.encoding;
    if verb == "get" {
        let object = with_type(&call.resource, &read::find(call)?.object());
        return Ok(respond::value(200, encoding, &scale(call, &object)));
    }
    let name = call.path.name.clone().unwrap_or_default();
    let kind = if verb == "patch" { "PatchOptions" } else { "UpdateOptions" };
    let options = WriteOptions::parse(&call.query, kind)?;
    let wanted = if verb == "update" { Some(body::other(call, "Scale", "autoscaling/v1")?) } else { None };
    let patch = if verb == "patch" { Some(Patch::parse(call, &options)?) } else { None };
    let spec_path = Paths::of(call).spec;
    let manager = call.default_manager();
    let shared: &Call = call;
    let ownership =
        if matches!(patch, Some(Patch::Apply(..))) { Ownership::Given } else { Ownership::Writer };
    let mut scope = Scope { ownership, ..scope!(shared, &options, &manager) };
    // Merging borrows the scope that then writes, so it gets one of its own.
    let merger = scope!(shared, &options, &manager);
    let result = scope
        .modify(&name, PART, &mut |current| {
            let before = scale(shared, current);
            match (&wanted, &patch) {
                (Some(wanted), _) => scaled(current, &name, wanted, &spec_path),
                (None, Some(Patch::Apply(config, _))) => {
                    let merged = applied(&merger, current, config, &spec_path)?;
                    let mut after = scale(shared, &merged);
                    set_at(&mut after, &["metadata"], config.get("metadata").cloned());
                    scaled(&merged, &name, &after, &spec_path)
                }
                (None, Some(patch)) => {
                    scaled(current, &name, &patch.apply(&shared.resource, &before)?, &spec_path)
                }
                (None, None) => scaled(current, &name, &before, &spec_path),
            }
        })
        .await;
    let object = match &result? {
        Written::Stored(entry) => with_type(&call.resource, &entry.object()),
        Written::Shown(object) => with_type(&call.resource, object),
    };
    Ok(respond::value(200, encoding, &scale(call, &object)))
}

/// The object after a server-side apply of a `Scale`: the applier owns the replicas where they lie in the object.
fn applied(scope: &Scope<'_>, current: &Value, config: &Value, spec_path: &[String]) -> ApiResult<Value> {
    if !at(config, &["metadata", "managedFields"]).is_null() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    body::check_types(config, "Scale", "autoscaling/v1")?;
    let mut wanted = json!({ "kind": current["kind"], "apiVersion": current["apiVersion"] });
    let keys: Vec<&str> = spec_path.iter().map(String::as_str).collect();
    let replicas = at(config, &["spec", "replicas"]);
    set_at(&mut wanted, &keys, (!replicas.is_null()).then(|| replicas.clone()));
    rules::applied(scope, Some(current), &wanted, PART)
}

/// The object with the replicas of a `Scale`.
fn scaled(current: &Value, name: &str, scale: &Value, spec_path: &[String]) -> ApiResult<Value> {
    body::check_types(scale, "Scale", "autoscaling/v1")?;
    let replicas = at(scale, &["spec", "replicas"]).as_i64().unwrap_or(0);
    if replicas < 0 {
        let about = About { group: "autoscaling", what: "Scale", name };
        let cause = Cause::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(ApiError::invalid(about, &[cause]));
    }
    let mut object = current.clone();
    let keys: Vec<&str> = spec_path.iter().map(String::as_str).collect();
    set_at(&mut object, &keys, Some(replicas.into()));
    let version = meta(scale, "resourceVersion").to_owned();
    meta_mut(&mut object).insert("resourceVersion".into(), version.into());
    Ok(object)
}
