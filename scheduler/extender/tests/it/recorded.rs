//! What a real kube-scheduler 1.36 sent, answered in the form that it took.

use std::path::PathBuf;

use bytes::Bytes;
use muster_scheduler_extender::server::Observed;
use serde_json::Value;

use crate::support::{Extender, bound, node, pod};

/// A filter call as it was recorded, shortened.
const NAMES: &str = r#"{"Pod":{"metadata":{"name":"e0","namespace":"ext","uid":"b3c15ffe","resourceVersion":"8657","generation":1,
"creationTimestamp":"2026-11-20T22:44:31Z","labels":{"app":"bench"}},"spec":{"containers":[{"name":"c","image":"x","resources":{"limits":
{"nvidia.com/gpu":"8"},"requests":{"cpu":"100m","memory":"128Mi","nvidia.com/gpu":"8"}}}],"schedulerName":"default-scheduler"},
"status":{"phase":"Pending","qosClass":"Burstable"}},"Nodes":null,"NodeNames":["ext-0","ext-1","ext-2"]}"#;

fn keys(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(body).into_owned();
    let value: Value = serde_json::from_slice(body).unwrap();
    let mut keys: Vec<String> = match &value {
        Value::Object(members) => members.keys().cloned().collect(),
        Value::Array(elements) => elements
            .first()
            .and_then(Value::as_object)
            .map_or(Vec::new(), |first| first.keys().cloned().collect()),
        _ => Vec::new(),
    };
    // In the order in which they are written.
    keys.sort_by_key(|key| text.find(&format!("\"{key}\":")));
    keys
}

#[tokio::test]
async fn a_filter_call_is_answered_key_by_key_in_gos_order() {
    let extender = Extender::with_nodes(&["ext-0", "ext-1", "ext-2"], 8).await;
    extender.see(pod("ext", "e0", "b3c15ffe", 8));
    let body = extender.client().await.call("filter", Bytes::from_static(NAMES.as_bytes())).await.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&body),
        r#"{"Nodes":null,"NodeNames":["ext-0"],"FailedNodes":{},"FailedAndUnresolvableNodes":{},"Error":""}"#
    );
}

fn folder() -> Option<PathBuf> {
    let shared = std::env::var_os("MUSTER_SHARED");
    if shared.is_none() {
        eprintln!("skipped: MUSTER_SHARED does not name the folder of recorded calls");
    }
    Some(PathBuf::from(shared?).join("upstream/extender"))
}

/// The body of a recorded request or response: as text in Go's order of keys, and as a value.
fn recording(folder: &std::path::Path, name: &str) -> Value {
    let text = fs_err::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["body"].take()
}

/// Pods that a request is about: the pod itself, and victims with their nodes.
fn pods_of(request: &Value) -> Vec<muster_scheduler_extender::core::PodSeen> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &request["Pod"]["metadata"];
    let mut own = pod(&text(&metadata["namespace"]), &text(&metadata["name"]), &text(&metadata["uid"]), 8);
    own.priority = i32::try_from(request["Pod"]["spec"]["priority"].as_i64().unwrap_or(0)).unwrap();
    let mut pods = vec![own];
    for form in ["NodeNameToMetaVictims", "NodeNameToVictims"] {
        for (node, victims) in request[form].as_object().into_iter().flatten() {
            for victim in victims["Pods"].as_array().into_iter().flatten() {
                let uid =
                    if form == "NodeNameToVictims" { &victim["metadata"]["uid"] } else { &victim["UID"] };
                pods.push(bound(pod("ext", &text(uid), &text(uid), 8), node));
            }
        }
    }
    pods
}

fn nodes_of(request: &Value) -> Vec<String> {
    let names = request["NodeNames"].as_array().cloned().unwrap_or_default();
    let items = request["Nodes"]["items"].as_array().cloned().unwrap_or_default();
    let items = items.iter().map(|item| item["metadata"]["name"].clone());
    let mut nodes: Vec<String> =
        names.into_iter().chain(items).filter_map(|name| name.as_str().map(str::to_owned)).collect();
    for form in ["NodeNameToMetaVictims", "NodeNameToVictims"] {
        nodes.extend(request[form].as_object().into_iter().flatten().map(|(node, _)| node.clone()));
    }
    nodes
}

async fn play(name: &str, verb: &str) -> Option<(Value, Value, Bytes)> {
    let folder = folder()?;
    let request = recording(&folder, &format!("{name}-{verb}-request"));
    let recorded = recording(&folder, &format!("{name}-{verb}-response"));
    let extender = Extender::start().await;
    let nodes = nodes_of(&request);
    extender.handle.observe(nodes.iter().map(|name| Observed::Node(Box::new(node(name, 8)))));
    extender.handle.observe(pods_of(&request).into_iter().map(|pod| Observed::Pod(Box::new(pod))));
    extender.handle.observe([Observed::Synced]);
    let mut client = extender.client().await;
    if verb == "prioritize" {
        // kube-scheduler filters first.
        client.call("filter", Bytes::from(request.to_string())).await.unwrap();
    }
    let answer = client.call(verb, Bytes::from(request.to_string())).await.unwrap();
    Some((request, recorded, answer))
}

#[tokio::test]
async fn recorded_filter_calls_are_answered_in_the_recorded_form() {
    for name in ["nodecache-true", "nodecache-false", "gang-with-extender"] {
        let Some((request, recorded, answer)) = play(name, "filter").await else { return };
        assert_eq!(
            keys(&answer),
            ["Nodes", "NodeNames", "FailedNodes", "FailedAndUnresolvableNodes", "Error"]
        );
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["Error"], "", "{name}");
        for form in ["Nodes", "NodeNames"] {
            assert_eq!(answer[form].is_null(), recorded[form].is_null(), "{name}: {form}");
        }
        // Exactly one of what was offered, whole.
        let passed = nodes_of(&answer);
        assert_eq!(passed.len(), 1, "{name}");
        if let Some(items) = answer["Nodes"]["items"].as_array() {
            assert!(request["Nodes"]["items"].as_array().unwrap().contains(&items[0]), "{name}");
        }
        let offered = nodes_of(&request);
        assert!(offered.contains(&passed[0]), "{name}");
    }
}

#[tokio::test]
async fn recorded_prioritize_calls_are_answered_in_the_recorded_form() {
    for name in ["nodecache-true", "nodecache-false", "gang-with-extender"] {
        let Some((_, recorded, answer)) = play(name, "prioritize").await else { return };
        assert_eq!(keys(&answer), ["Host", "Score"]);
        let answer: Vec<Value> = serde_json::from_slice(&answer).unwrap();
        let recorded = recorded.as_array().unwrap();
        let of = |answer: &[Value], field: &str| -> Vec<Value> {
            answer.iter().map(|score| score[field].clone()).collect()
        };
        assert_eq!(
            of(&answer, "Host"),
            of(recorded, "Host"),
            "{name}: the nodes in the order of the question"
        );
        let mut scores = (of(&answer, "Score"), of(recorded, "Score"));
        scores.0.sort_by_key(Value::as_i64);
        scores.1.sort_by_key(Value::as_i64);
        assert_eq!(scores.0, scores.1, "{name}");
    }
}

#[tokio::test]
async fn recorded_preempt_calls_get_the_recorded_answer() {
    for name in ["nodecache-true", "nodecache-false"] {
        let Some((_, recorded, answer)) = play(name, "preempt").await else { return };
        assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap(), recorded, "{name}");
    }
}

#[tokio::test]
async fn recorded_bind_calls_get_the_recorded_answer() {
    for name in ["nodecache-true", "nodecache-false", "gang-with-extender"] {
        let Some(folder) = folder() else { return };
        let request = recording(&folder, &format!("{name}-bind-request"));
        let recorded = recording(&folder, &format!("{name}-bind-response"));
        let text = |field: &str| request[field].as_str().unwrap().to_owned();
        let extender = Extender::with_nodes(&[&text("Node")], 8).await;
        let own = pod(&text("PodNamespace"), &text("PodName"), &text("PodUID"), 8);
        extender.see(own.clone());
        let mut client = extender.client().await;
        client.filter(&crate::support::arguments(&own, &[&text("Node")])).await.unwrap();
        let answer = client.call("bind", Bytes::from(request.to_string())).await.unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap(), recorded, "{name}");
        assert_eq!(extender.cluster.bindings.lock()[&text("PodUID")].node, text("Node"));
    }
}
