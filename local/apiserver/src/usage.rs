//! `metrics.k8s.io`: what nodes and pods use now, worked out from two readings of the node.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use jiff::Timestamp;
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

/// What a node or pod has used so far, and each of its containers.
#[derive(Debug, Clone, Default)]
struct Readings {
    whole: Reading,
    containers: BTreeMap<String, Reading>,
}

/// Readings by namespace (empty for nodes) and name.
type AllReadings = BTreeMap<(String, String), Readings>;

impl Readings {
    fn of(entry: &Value) -> Self {
        let containers = at(entry, &["containers"]).as_array().into_iter().flatten();
        let named = containers.map(|container| (text(container, &["name"]).to_owned(), reading(container)));
        Self { whole: reading(entry), containers: named.collect() }
    }
}

impl Reading {
    /// What was used since an earlier reading, a second. A container that started again counts from its start.
    fn usage_since(self, earlier: Self, seconds: f64) -> Value {
        let nanoseconds = self.cpu_nanoseconds.saturating_sub(earlier.cpu_nanoseconds) as f64 / seconds;
        json!({ "cpu": format!("{}n", nanoseconds as u64), "memory": format!("{}Ki", self.memory_bytes / 1024) })
    }
}

fn reading(entry: &Value) -> Reading {
    Reading {
        cpu_nanoseconds: at(entry, &["cpu", "usageCoreNanoSeconds"]).as_u64().unwrap_or(0),
        memory_bytes: at(entry, &["memory", "workingSetBytes"]).as_u64().unwrap_or(0),
    }
}

async fn read(call: &Call) -> ApiResult<AllReadings> {
    let answer = node::get(call.app.node_socket.as_deref(), "/stats/summary").await?;
    let body = Limited::new(answer.into_body(), LARGEST).collect().await;
    let body =
        body.map_err(|error| ApiError::internal_error(format!("the node's statistics broke off: {error}")))?;
    let summary: Value = serde_json::from_slice(&body.to_bytes()).map_err(ApiError::internal_error)?;
    let mut found = AllReadings::new();
    for node in at(&summary, &["nodes"]).as_array().into_iter().flatten() {
        found.insert(
            (String::new(), text(node, &["node", "nodeName"]).to_owned()),
            Readings::of(&node["node"]),
        );
        for pod in at(node, &["pods"]).as_array().into_iter().flatten() {
            let key =
                (text(pod, &["podRef", "namespace"]).to_owned(), text(pod, &["podRef", "name"]).to_owned());
            found.insert(key, Readings::of(pod));
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
        .map(|(key, now)| item(call, key, now, before.get(key).unwrap_or(now), seconds))
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

fn item(
    call: &Call,
    (namespace, name): &(String, String),
    now: &Readings,
    before: &Readings,
    seconds: f64,
) -> Value {
    let mut item = json!({
        "kind": call.resource.kind, "apiVersion": call.resource.api_version(),
        "metadata": { "name": name, "creationTimestamp": format_time(Timestamp::now()) },
        "timestamp": format_time(Timestamp::now()), "window": "500ms",
    });
    let whole = now.whole.usage_since(before.whole, seconds);
    if namespace.is_empty() {
        item["usage"] = whole;
        return item;
    }
    item["metadata"]["namespace"] = namespace.clone().into();
    let containers = now.containers.iter().map(|(container, used)| {
        let earlier = before.containers.get(container).copied().unwrap_or(*used);
        json!({ "name": container, "usage": used.usage_since(earlier, seconds) })
    });
    let containers: Vec<Value> = containers.collect();
    // Where the node cannot tell them apart, the figures stand under the pod's name.
    let together = || json!([{ "name": name, "usage": whole }]);
    item["containers"] = if containers.is_empty() { together() } else { containers.into() };
    item
}
