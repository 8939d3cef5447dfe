//! Autoscalers in both versions of their API: one object, seen in two ways.

use serde_json::{Value, json};

use crate::harness::{Server, ask, create};

const V1: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const V2: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

fn autoscaler(version: &str, spec: Value) -> Value {
    let mut whole = json!({
        "maxReplicas": 3, "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
    });
    whole.as_object_mut().expect("map").extend(spec.as_object().expect("map").clone());
    json!({
        "apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler",
        "metadata": { "name": "web" }, "spec": whole,
    })
}

async fn get(client: &kube::Client, path: &str) -> Value {
    let (status, answer) = ask(client, "GET", path, "", "").await;
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test]
async fn what_one_version_writes_the_other_shows() {
    let server = Server::start().await;
    let client = server.handle.client();
    let created =
        create(&client, V1, &autoscaler("v1", json!({ "targetCPUUtilizationPercentage": 50 }))).await;
    assert_eq!(created["apiVersion"], "autoscaling/v1");
    assert_eq!(
        (&created["spec"]["targetCPUUtilizationPercentage"], &created["spec"]["minReplicas"]),
        (&json!(50), &json!(1))
    );
    let seen = get(&client, &format!("{V2}/web")).await;
    let target = json!({ "type": "Utilization", "averageUtilization": 50 });
    assert_eq!(seen["apiVersion"], "autoscaling/v2");
    assert_eq!(
        seen["spec"]["metrics"],
        json!([{ "type": "Resource", "resource": { "name": "cpu", "target": target } }])
    );
    assert!(seen["spec"].get("targetCPUUtilizationPercentage").is_none());

    // What only v2 knows is kept by a change through v1.
    let rules = json!({ "spec": { "behavior": { "scaleDown": { "stabilizationWindowSeconds": 7 } } } });
    let (status, answer) = ask(&client, "PATCH", &format!("{V2}/web"), MERGE, rules.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    let more = json!({ "spec": { "maxReplicas": 9, "targetCPUUtilizationPercentage": 60 } });
    let (status, answer) = ask(&client, "PATCH", &format!("{V1}/web"), MERGE, more.to_string()).await;
    assert_eq!((status, &answer["spec"]["maxReplicas"]), (200, &json!(9)), "{answer}");
    let seen = get(&client, &format!("{V2}/web")).await;
    assert_eq!(seen["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"], 7);
    assert_eq!(seen["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 60);
    assert_eq!(seen["metadata"].get("annotations"), None);

    let condition = json!({ "type": "AbleToScale", "status": "True" });
    let status =
        json!({ "status": { "currentReplicas": 2, "desiredReplicas": 2, "conditions": [condition] } });
    let (code, answer) = ask(&client, "PATCH", &format!("{V2}/web/status"), MERGE, status.to_string()).await;
    assert_eq!(code, 200, "{answer}");
    let old = get(&client, &format!("{V1}/web/status")).await;
    assert_eq!(old["status"]["currentReplicas"], 2);
    let noted = old["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/conditions"].as_str();
    assert!(noted.is_some_and(|text| text.contains("AbleToScale")), "{old}");
    for path in [V1, V2] {
        let list = get(&client, path).await;
        assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
        assert_eq!(list["items"][0]["spec"].get("metrics").is_some(), path == V2);
    }
    let (status, answer) = ask(&client, "DELETE", &format!("{V1}/web"), "", "").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(get(&client, V2).await["items"], json!([]));
    server.stop().await;
}

#[tokio::test]
async fn both_versions_are_checked_and_applied() {
    let server = Server::start().await;
    let client = server.handle.client();
    let wrong = autoscaler("v1", json!({ "maxReplicas": 0 }));
    let (status, answer) = ask(&client, "POST", V1, "application/json", wrong.to_string()).await;
    assert_eq!(status, 422, "{answer}");
    assert_eq!(answer["details"]["causes"][0]["field"], "spec.maxReplicas", "{answer}");
    let path = format!("{V1}/web?fieldManager=me&fieldValidation=Strict");
    let applied = autoscaler("v1", json!({ "targetCPUUtilizationPercentage": 50 }));
    for expected in [201, 200] {
        let (status, answer) = ask(&client, "PATCH", &path, APPLY, applied.to_string()).await;
        assert_eq!(status, expected, "{answer}");
    }
    let newer = autoscaler("v1", json!({ "metrics": [] }));
    let (status, answer) = ask(&client, "PATCH", &path, APPLY, newer.to_string()).await;
    assert_eq!(status, 400, "v1 has no such field: {answer}");
    let bare = json!({ "metadata": { "name": "bare" } });
    let mut bare_v1 = autoscaler("v1", json!({}));
    bare_v1["metadata"] = bare["metadata"].clone();
    create(&client, V1, &bare_v1).await;
    let seen = get(&client, &format!("{V2}/bare")).await;
    assert_eq!(
        seen["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80,
        "the default of v2"
    );
    server.stop().await;
}
