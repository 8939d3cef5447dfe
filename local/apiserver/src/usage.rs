//! `metrics.k8s.io`: what nodes and pods use now, worked out from two readings of the node.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use jiff::Timestamp;
use muster_store::ObjectKey;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::app::Call;
use crate::meta::{at, format_time, text};
use crate::negotiate::Form;
use crate::node;
use crate::respond::{self, Reply};
use crate::status::{About, ApiError, ApiResult};

/// Time between the two readings.
const WINDOW: Duration = Duration::from_millis(500);
/// Largest reading.
const LARGEST: usize = 16 << 20;

/// What one node or pod has used so far.
#[derive(Debug, Clone, Copy, Default)]
struct Reading {
    cpu_nanoseconds: u64,
    memory_bytes: u64,
}

/// Readings by namespace (empty for nodes) and name.
type Readings = BTreeMap<(String, String), Reading>;

fn reading(entry: &Value) -> Reading {
    Reading {
        cpu_nanoseconds: at(entry, &["cpu", "usageCoreNanoSeconds"]).as_u64().unwrap_or(0),
        memory_bytes: at(entry, &["memory", "workingSetBytes"]).as_u64().unwrap_or(0),
    }
}

async fn read(call: &Call) -> ApiResult<Readings> {
    let answer = node::get(call.app.node_socket.as_deref(), "/stats/summary").await?;
    let body = Limited::new(answer.into_body(), LARGEST).collect().await;
    let body =
        body.map_err(|error| ApiError::internal_error(format!("the node's statistics broke off: {error}")))?;
    let summary: Value = serde_json::from_slice(&body.to_bytes()).map_err(ApiError::internal_error)?;
    let mut found = Readings::new();
    for node in at(&summary, &["nodes"]).as_array().into_iter().flatten() {
        found.insert((String::new(), text(node, &["node", "nodeName"]).to_owned()), reading(&node["node"]));
        for pod in at(node, &["pods"]).as_array().into_iter().flatten() {
            let key =
                (text(pod, &["podRef", "namespace"]).to_owned(), text(pod, &["podRef", "name"]).to_owned());
            found.insert(key, reading(pod));
        }
    }
    Ok(found)
}

/// `GET` of metrics.
pub(crate) async fn answer(call: &Call) -> ApiResult<Reply> {
    if call.app.node_socket.is_none() {
        return Err(ApiError::unavailable(
            "the server is currently unable to handle the request: no node is connected",
        ));
    }
    if call.accepted.form != Form::Object {
        return Err(ApiError::not_acceptable());
    }
    let started = Instant::now();
    let before = read(call).await?;
    tokio::time::sleep(WINDOW).await;
    let after = read(call).await?;
    let seconds = started.elapsed().as_secs_f64();
    let pods = call.resource.namespaced;
    let wanted = call.path.namespace.as_deref();
    let items: Vec<Value> = after
        .iter()
        .filter(|((namespace, _), _)| {
            pods != namespace.is_empty() && wanted.is_none_or(|wanted| wanted == namespace)
        })
        .map(|(key, now)| {
            let earlier = before.get(key).copied().unwrap_or(*now);
            let nanoseconds = now.cpu_nanoseconds.saturating_sub(earlier.cpu_nanoseconds) as f64 / seconds;
            let usage = json!({
                "cpu": format!("{}n", nanoseconds as u64), "memory": format!("{}Ki", now.memory_bytes / 1024),
            });
            item(call, key, &usage)
        })
        .collect();
    let encoding = call.accepted.encoding;
    if let Some(name) = call.path.name.as_deref() {
        let about = About { group: "metrics.k8s.io", what: &call.resource.plural, name };
        let found = items.iter().find(|item| text(item, &["metadata", "name"]) == name);
        return found
            .map(|item| respond::value(200, encoding, item))
            .ok_or_else(|| ApiError::not_found(about));
    }
    let list = json!({
        "kind": call.resource.list_kind, "apiVersion": call.resource.api_version(), "metadata": {}, "items": items,
    });
    Ok(respond::value(200, encoding, &list))
}

fn item(call: &Call, (namespace, name): &(String, String), usage: &Value) -> Value {
    let mut item = json!({
        "kind": call.resource.kind, "apiVersion": call.resource.api_version(),
        "metadata": { "name": name, "creationTimestamp": format_time(Timestamp::now()) },
        "timestamp": format_time(Timestamp::now()), "window": "500ms",
    });
    if namespace.is_empty() {
        item["usage"] = usage.clone();
    } else {
        item["metadata"]["namespace"] = namespace.clone().into();
        let container = only_container(call, namespace, name);
        // The node counts whole pods; the figures of several containers stand under the pod's name.
        item["containers"] = json!([{ "name": container.as_deref().unwrap_or(name), "usage": usage }]);
    }
    item
}

/// The name of the pod's container, if it has only one.
fn only_container(call: &Call, namespace: &str, name: &str) -> Option<String> {
    let pod = call.app.store.get(&ObjectKey::new("core/pods", namespace, name))?.object();
    match at(&pod, &["spec", "containers"]).as_array()?.as_slice() {
        [only] => Some(text(only, &["name"]).to_owned()),
        _ => None,
    }
}
