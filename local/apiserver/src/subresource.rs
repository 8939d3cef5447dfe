//! Parts of objects with paths of their own.

use http::Method;
use serde_json::{Value, json};

use crate::app::Call;
use crate::body;
use crate::change::{self, scope};
use crate::meta::{at, meta, set_at, text};
use crate::objects::{DeleteOptions, Ownership, Part, Scope};
use crate::read;
use crate::request::WriteOptions;
use crate::respond::{self, Reply};
use crate::scale;
use crate::status::{self, About, ApiError, ApiResult};

/// Answers a request for a subresource.
pub(crate) async fn answer(call: &mut Call, method: &Method, verb: &'static str) -> ApiResult<Reply> {
    let name = call.path.subresource.clone().unwrap_or_default();
    let Some(subresource) = call.resource.subresource(&name) else {
        return Ok(respond::page_not_found());
    };
    if !subresource.verbs.iter().any(|own| own == verb) {
        return Err(ApiError::method_not_allowed());
    }
    match (name.as_str(), method.as_str()) {
        ("scale", _) => scale::answer(call, verb).await,
        ("binding", _) => bind(call).await,
        ("eviction", _) => evict(call).await,
        ("log" | "exec" | "attach" | "portforward" | "proxy", _) => crate::node::answer(call, &name).await,
        ("token", _) => crate::tokens::request(call),
        (_, "GET") => read::get(call),
        (part, "PUT") => update(call, part).await,
        (part, "PATCH") => change::patch_part(call, Part::Subresource(part)).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn update(call: &mut Call, part: &str) -> ApiResult<Reply> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let object = change::decoded(call, &options)?;
    let name = call.path.name.clone().unwrap_or_default();
    change::replace(call, &name, &options, Part::Subresource(part), object).await
}

/// `POST pods/NAME/binding`: gives the pod its node.
async fn bind(call: &mut Call) -> ApiResult<Reply> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let binding = body::other(call, "Binding", "v1")?;
    let name = call.path.name.clone().unwrap_or_default();
    let given = meta(&binding, "name");
    if !given.is_empty() && given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let node = text(&binding, &["target", "name"]).to_owned();
    if node.is_empty() {
        return Err(ApiError::internal("target.name: Required value"));
    }
    let uid = meta(&binding, "uid").to_owned();
    let about = About { group: "", what: "pods/binding", name: &name };
    let manager = call.default_manager();
    let scope = scope!(call, &options, &manager);
    // Nobody owns the node of a pod.
    Scope { ownership: Ownership::Given, ..scope }
        .modify(&name, Part::Subresource("binding"), &mut |current| {
            if !uid.is_empty() && uid != meta(current, "uid") {
                let why = format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                    meta(current, "uid")
                );
                return Err(ApiError::conflict(about, why));
            }
            if crate::meta::is_deleting(current) {
                let why = format!("pod {name} is being deleted, cannot be assigned to a host");
                return Err(ApiError::conflict(about, why));
            }
            let assigned = text(current, &["spec", "nodeName"]);
            if !assigned.is_empty() {
                let why = format!("pod {name} is already assigned to node \"{assigned}\"");
                return Err(ApiError::conflict(about, why));
            }
            if at(current, &["spec", "schedulingGates"]).as_array().is_some_and(|gates| !gates.is_empty()) {
                let why = format!("pod {name} has non-empty .spec.schedulingGates");
                return Err(ApiError::conflict(about, why));
            }
            Ok(bound(current, &binding, &node))
        })
        .await?;
    Ok(respond::value(201, call.accepted.encoding, &status::success(Some(201), None)))
}

/// The pod on its node, with the binding's labels and annotations and the condition that says so.
fn bound(pod: &Value, binding: &Value, node: &str) -> Value {
    let mut pod = pod.clone();
    set_at(&mut pod, &["metadata", "resourceVersion"], None);
    set_at(&mut pod, &["spec", "nodeName"], Some(node.into()));
    for field in ["annotations", "labels"] {
        for (key, value) in at(binding, &["metadata", field]).as_object().into_iter().flatten() {
            set_at(&mut pod, &["metadata", field, key], Some(value.clone()));
        }
    }
    let mut conditions = at(&pod, &["status", "conditions"]).as_array().cloned().unwrap_or_default();
    conditions.retain(|condition| condition["type"] != "PodScheduled");
    conditions.push(json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": crate::meta::now(),
    }));
    set_at(&mut pod, &["status", "conditions"], Some(conditions.into()));
    pod
}

/// `POST pods/NAME/eviction`: deletes the pod unless a disruption budget holds it.
async fn evict(call: &mut Call) -> ApiResult<Reply> {
    let eviction = body::other(call, "Eviction", "policy/v1")?;
    let name = call.path.name.clone().unwrap_or_default();
    let given = &eviction["deleteOptions"];
    let mut options = WriteOptions::parse(&call.query, "CreateOptions")?;
    options.dry_run |= given["dryRun"].as_array().is_some_and(|list| !list.is_empty());
    let own = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let mut delete = DeleteOptions {
        grace_period_seconds: given["gracePeriodSeconds"].as_i64(),
        propagation: own(&given["propagationPolicy"]),
        uid: own(&given["preconditions"]["uid"]),
        resource_version: own(&given["preconditions"]["resourceVersion"]),
    };
    let pod = read::find(call)?.object();
    crate::eviction::take_from_budget(call, &pod, options.dry_run).await?;
    let mut scope = scope!(call, &options, "muster-apiserver");
    let is_meant = |wanted: &Option<String>, field: &str| {
        wanted.as_deref().is_none_or(|wanted| wanted == meta(&pod, field))
    };
    // A pod that is not the one that is meant is left alone, and the deletion refused.
    if !options.dry_run
        && is_meant(&delete.uid, "uid")
        && is_meant(&delete.resource_version, "resourceVersion")
    {
        let announce = &mut |pod: &Value| Ok(crate::eviction::announced(pod));
        let announced = scope.modify(&name, Part::Subresource("status"), announce).await?;
        if delete.resource_version.is_some() {
            delete.resource_version = Some(meta(&announced.object(), "resourceVersion").to_owned());
        }
    }
    scope.delete(&name, &delete).await?;
    Ok(respond::value(201, call.accepted.encoding, &status::success(Some(201), None)))
}
