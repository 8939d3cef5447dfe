//! Pods as a real Kubernetes has them.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
use muster_scheduler_controller::objects::{GroupKind, PodFacts, Stage};
use serde_json::Value;

/// A recording; nothing where there are none.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn recording(path: &str) -> Option<Value> {
    let Some(shared) = std::env::var_os("MUSTER_SHARED").map(PathBuf::from) else {
        eprintln!("skipped: MUSTER_SHARED does not name the folder of recordings");
        return None;
    };
    let text = fs_err::read_to_string(shared.join("upstream").join(path)).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}

#[test]
fn a_pod_of_a_native_gang_names_its_pod_group() {
    let Some(recording) = recording("extender/gang-with-extender-filter-request.json") else { return };
    let body: Value = match &recording["body"] {
        Value::String(text) => serde_json::from_str(text).unwrap(),
        body => body.clone(),
    };
    let pod: Pod = serde_json::from_value(body["Pod"].clone()).unwrap();
    let facts = PodFacts::read(&pod);
    let described_by = facts.membership.described_by.unwrap();
    assert_eq!((described_by.group.kind, described_by.group.name.as_str()), (GroupKind::Native, "rack4"));
    assert_eq!((facts.problems, facts.stage), (vec![], Stage::Waiting));
    assert!(facts.member.requests.get("cpu") > 0 || facts.member.gpus > 0);
}

#[test]
fn pods_of_a_real_server_are_read_without_problems() {
    let Some(recording) = recording("kube-1.36/answers/04-pods.json") else { return };
    let answers = recording.as_array().unwrap().iter().map(|exchange| &exchange["response"]["body"]);
    let items = answers.flat_map(|body| match &body["items"] {
        Value::Array(items) => items.clone(),
        _ => vec![body.clone()],
    });
    let pods: Vec<Pod> = items
        .filter(|item| item["spec"]["containers"].is_array())
        .filter_map(|item| serde_json::from_value(item).ok())
        .collect();
    assert!(pods.len() > 5, "the recording has pods");
    let facts: Vec<PodFacts> = pods.iter().map(PodFacts::read).collect();
    assert!(facts.iter().all(|facts| facts.problems.is_empty() && !facts.key.name.is_empty()));
    assert!(facts.iter().any(|facts| matches!(facts.stage, Stage::Gated(_))));
}
