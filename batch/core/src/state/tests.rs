use k8s_openapi::api::batch::v1::Job;
use muster_trainer_api::MpiJob;
use serde_json::{Value, json};

use super::*;

fn job(annotations: Value, spec: Value, status: Value) -> Work {
    let mut whole = json!({ "template": {} });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let job: Job = serde_json::from_value(json!({
        "metadata": { "name": "batch-7", "labels": { names::ID: "7", QUEUE: "research" }, "annotations": annotations },
        "spec": whole, "status": status,
    }))
    .unwrap();
    job.into()
}

fn pod(index: Option<u32>, node: &str, status: Value) -> Pod {
    let annotations = index.map_or(json!({}), |index| json!({ INDEX: index.to_string() }));
    serde_json::from_value(json!({
        "metadata": { "annotations": annotations }, "spec": { "nodeName": node, "containers": [] }, "status": status,
    }))
    .unwrap()
}

fn shown(work: &Work, pods: &[Pod]) -> Vec<String> {
    let pods: Vec<&Pod> = pods.iter().collect();
    let row = |row: Row| format!("{} {} {}", row.label(), row.state.code(), row.place());
    rows(work, &pods).into_iter().map(row).collect()
}

#[test]
fn a_job_is_in_the_state_of_its_pod() {
    let plain = |status: Value| job(json!({}), json!({}), status);
    let running = json!({ "phase": "Running", "startTime": "2026-01-01T00:00:00Z" });
    let gated = json!({ "phase": "Pending", "conditions": [
        { "type": "PodScheduled", "status": "False", "reason": "Unschedulable" }] });
    assert_eq!(shown(&plain(json!({})), &[]), ["7 PD (None)"]);
    assert_eq!(shown(&plain(json!({})), &[pod(None, "", gated)]), ["7 PD (Resources)"]);
    assert_eq!(
        shown(&plain(json!({})), &[pod(None, "n1", json!({ "phase": "Pending" }))]),
        ["7 PD (Prolog)"]
    );
    assert_eq!(shown(&plain(json!({})), &[pod(None, "n1", running)]), ["7 R n1"]);
    assert_eq!(shown(&plain(json!({})), &[pod(None, "n1", json!({ "phase": "Succeeded" }))]), ["7 CG "]);
    let ended = |condition: &str| json!({ "conditions": [{ "type": condition, "status": "True" }] });
    assert_eq!(shown(&plain(ended("Complete")), &[]), ["7 CD "]);
    let late = pod(None, "n1", json!({ "phase": "Failed", "reason": "DeadlineExceeded" }));
    assert_eq!(shown(&plain(ended("Failed")), &[late]), ["7 TO n1"]);
    assert_eq!(shown(&plain(ended("Failed")), &[]), ["7 F "]);
    let cancelled = job(json!({ names::CANCELLED: "user" }), json!({}), ended("Failed"));
    assert_eq!(shown(&cancelled, &[]), ["7 CA "]);
    assert!(rows(&Job::default().into(), &[]).is_empty(), "no batch job");
}

#[test]
fn a_job_that_does_not_start_says_why() {
    let suspended = |annotations: Value| job(annotations, json!({ "suspend": true }), json!({}));
    for (annotations, reason) in [
        (json!({}), "JobHeldUser"),
        (json!({ names::DEPENDENCY: "afterok:1" }), "Dependency"),
        (json!({ names::DEPENDENCY: "afterok:1", names::HOLD: "user" }), "JobHeldUser"),
        (
            json!({ names::DEPENDENCY: "afterok:1", names::REASON: "DependencyNeverSatisfied" }),
            "DependencyNeverSatisfied",
        ),
    ] {
        assert_eq!(shown(&suspended(annotations), &[]), [format!("7 PD ({reason})")]);
    }
}

#[test]
fn an_array_shows_what_runs_and_what_waits() {
    let running = || json!({ "phase": "Running" });
    let status = json!({ "completedIndexes": "0,1", "failedIndexes": "2" });
    let array = job(json!({ names::ARRAY: "10-19%2" }), json!({}), status);
    let pods = [pod(Some(3), "n1", running()), pod(Some(4), "n2", running())];
    assert_eq!(shown(&array, &pods), ["7_13 R n1", "7_14 R n2", "7_[15-19%2] PD (JobArrayTaskLimit)"]);
    let held = job(json!({ names::ARRAY: "0-3,9" }), json!({ "suspend": true }), json!({}));
    assert_eq!(shown(&held, &[]), ["7_[0-3,9] PD (JobHeldUser)"]);
    let over = json!({ "conditions": [{ "type": "Complete", "status": "True" }] });
    assert_eq!(shown(&job(json!({ names::ARRAY: "0-3" }), json!({}), over), &[]), ["7_[0-3] CD "]);
}

#[test]
fn a_job_of_several_nodes_runs_once_all_of_it_does() {
    let work = |condition: &str, reason: &str| -> Work {
        let job: MpiJob = serde_json::from_value(json!({
            "apiVersion": "kubeflow.org/v1", "kind": "MPIJob",
            "metadata": { "name": "batch-7", "labels": { names::ID: "7" } },
            "spec": { "mpiReplicaSpecs": { "Worker": { "replicas": 2, "template": {} } } },
            "status": { "conditions": [{ "type": condition, "status": "True", "reason": reason }] },
        }))
        .unwrap();
        job.into()
    };
    let member = |type_: &str, node: &str, status: Value| -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": format!("{type_}-{node}"),
                          "labels": { "training.kubeflow.org/replica-type": type_ } },
            "spec": { "nodeName": node, "containers": [] }, "status": status,
        }))
        .unwrap()
    };
    let running = || json!({ "phase": "Running", "startTime": "2026-01-01T00:00:00Z" });
    let worker = |node: &str| member("worker", node, running());
    let gated = json!({ "phase": "Pending", "conditions": [
        { "type": "PodScheduled", "status": "False", "reason": "Unschedulable" }] });
    let begun = work("Created", "");
    assert_eq!(shown(&begun, &[]), ["7 PD (None)"]);
    let pods = [member("worker", "", gated), member("launcher", "n3", json!({ "phase": "Pending" }))];
    assert_eq!(shown(&begun, &pods), ["7 PD (Resources)"]);
    let pods: Vec<&Pod> = pods.iter().collect();
    assert_eq!(rows(&begun, &pods)[0].unplaced.as_deref(), Some("worker-"));
    let launcher = member("launcher", "n3", json!({ "phase": "Pending" }));
    assert_eq!(shown(&begun, &[launcher, worker("n1"), worker("n2")]), ["7 PD (Prolog)"]);
    let pods = [member("launcher", "n3", running()), worker("n1"), worker("n2")];
    assert_eq!(shown(&begun, &pods), ["7 R n[1-2]"]);
    assert_eq!(rows(&begun, &pods.iter().collect::<Vec<_>>())[0].node_count, 2);
    assert_eq!(shown(&work("Failed", "DeadlineExceeded"), &[]), ["7 TO "]);
    assert_eq!(shown(&work("Succeeded", ""), &[worker("n1")]), ["7 CD n1"]);
}
