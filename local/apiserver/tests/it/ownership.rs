//! Who owns which fields: server-side apply beside other writers.

use serde_json::{Value, json};

use crate::harness::{Server, ask, create};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

fn deployment(replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "api" },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": "api" } },
            "template": {
                "metadata": { "labels": { "app": "api" } },
                "spec": { "containers": [{ "name": "c", "image": "img:1" }] },
            },
        },
    })
}

/// A deployment as client-side apply leaves it.
async fn client_side_applied(server: &Server) -> kube::Client {
    let client = server.handle.client();
    let mut object = deployment(3);
    let last = object.to_string();
    object["metadata"]["annotations"] = json!({ "kubectl.kubernetes.io/last-applied-configuration": last });
    create(&client, &format!("{DEPLOYMENTS}?fieldManager=kubectl-client-side-apply"), &object).await;
    client
}

async fn scale(client: &kube::Client, replicas: u32) {
    let path = format!("{DEPLOYMENTS}/api/scale?fieldManager=kubectl");
    let patch = json!({ "spec": { "replicas": replicas } }).to_string();
    let (status, answer) = ask(client, "PATCH", &path, MERGE, patch).await;
    assert_eq!(status, 200, "{answer}");
}

async fn owners(client: &kube::Client) -> Vec<(Value, Value, Value)> {
    let (_, object) = ask(client, "GET", &format!("{DEPLOYMENTS}/api"), "", "").await;
    let entries = object["metadata"]["managedFields"].as_array().expect("managed fields");
    let replicas = |entry: &&Value| entry["fieldsV1"]["f:spec"].get("f:replicas").is_some();
    let owner =
        |entry: &Value| (entry["manager"].clone(), entry["operation"].clone(), entry["subresource"].clone());
    entries.iter().filter(replicas).map(owner).collect()
}

#[tokio::test]
async fn whoever_scaled_an_object_owns_its_replicas() {
    let server = Server::start().await;
    let client = client_side_applied(&server).await;
    scale(&client, 1).await;
    assert_eq!(owners(&client).await, [(json!("kubectl"), json!("Update"), json!("scale"))]);
    for manager in ["kubectl", "other"] {
        let path = format!("{DEPLOYMENTS}/api?fieldManager={manager}");
        let (status, answer) = ask(&client, "PATCH", &path, APPLY, deployment(3).to_string()).await;
        assert_eq!(status, 409, "{answer}");
        let message = "Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using \
                       apps/v1: .spec.replicas";
        assert_eq!(answer["message"], message);
        assert_eq!(answer["details"]["causes"][0]["field"], ".spec.replicas");
    }
    // Whoever wants the same number shares it.
    let path = format!("{DEPLOYMENTS}/api?fieldManager=other");
    let (status, answer) = ask(&client, "PATCH", &path, APPLY, deployment(1).to_string()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(owners(&client).await.len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn fields_that_client_side_apply_still_holds_are_taken_over() {
    let server = Server::start().await;
    let client = client_side_applied(&server).await;
    let path = format!("{DEPLOYMENTS}/api?fieldManager=kubectl");
    let (status, answer) = ask(&client, "PATCH", &path, APPLY, deployment(5).to_string()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["spec"]["replicas"], 5);
    server.stop().await;
}

#[tokio::test]
async fn a_scale_can_be_applied() {
    let server = Server::start().await;
    let client = client_side_applied(&server).await;
    let config = |replicas: Value| {
        json!({
            "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": { "name": "api" },
            "spec": { "replicas": replicas },
        })
        .to_string()
    };
    let path = format!("{DEPLOYMENTS}/api/scale?fieldManager=autoscaler");
    let (status, answer) = ask(&client, "PATCH", &path, APPLY, config(json!(7))).await;
    assert_eq!(status, 409, "{answer}");
    assert!(answer["message"].as_str().is_some_and(|text| text.contains("kubectl-client-side-apply")));
    let forced = format!("{path}&force=true");
    let (status, answer) = ask(&client, "PATCH", &forced, APPLY, config(json!(7))).await;
    assert_eq!((status, &answer["spec"]["replicas"]), (200, &json!(7)), "{answer}");
    assert_eq!(owners(&client).await, [(json!("autoscaler"), json!("Apply"), json!("scale"))]);
    let (status, answer) = ask(&client, "PATCH", &forced, APPLY, config(json!("many"))).await;
    assert_eq!((status, &answer["reason"]), (400, &json!("BadRequest")), "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appliers_that_meet_at_creation_all_succeed() {
    let server = Server::start().await;
    for round in 0..20 {
        let appliers = (0..4).map(|applier| {
            let client = server.handle.client();
            tokio::spawn(async move {
                let path = format!("/api/v1/namespaces/default/configmaps/m{round}?fieldManager=a{applier}");
                let config = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": format!("m{round}") },
                    "data": { format!("k{applier}"): "v" },
                });
                ask(&client, "PATCH", &path, APPLY, config.to_string()).await
            })
        });
        for answer in futures::future::join_all(appliers).await {
            let (status, answer) = answer.expect("asked");
            assert!(matches!(status, 200 | 201), "{answer}");
        }
        let path = format!("/api/v1/namespaces/default/configmaps/m{round}");
        let (_, map) = ask(&server.handle.client(), "GET", &path, "", "").await;
        assert_eq!(map["data"].as_object().map(serde_json::Map::len), Some(4), "{map}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_same_value_in_another_form_is_no_conflict() {
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let server = Server::start().await;
    let client = server.handle.client();
    let definition = |minimum: Value| {
        let count = json!({ "type": "integer", "minimum": minimum });
        let spec = json!({ "type": "object", "properties": { "count": count } });
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": "widgets.demo.example" },
            "spec": {
                "group": "demo.example", "scope": "Namespaced", "names": { "kind": "Widget", "plural": "widgets" },
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": spec } } },
                }],
            },
        })
    };
    // A program in Rust writes a float as 0.0, kubectl writes it as 0, a person as 0.0 in YAML.
    let mut versions = Vec::new();
    for (manager, minimum) in [("muster", json!(0.0)), ("kubectl", json!(0)), ("muster", json!(0.0))] {
        let path = format!("{DEFINITIONS}/widgets.demo.example?fieldManager={manager}");
        let (status, answer) = ask(&client, "PATCH", &path, APPLY, definition(minimum).to_string()).await;
        assert!(status < 300, "{answer}");
        let spec = &answer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert_eq!(spec["properties"]["count"]["minimum"].to_string(), "0");
        versions.push(answer["metadata"]["generation"].clone());
    }
    assert_eq!(versions, [1, 1, 1], "nothing changed");
    let path = format!("{DEFINITIONS}/widgets.demo.example?fieldManager=third");
    let (status, answer) = ask(&client, "PATCH", &path, APPLY, definition(json!(1)).to_string()).await;
    assert_eq!(status, 409, "another value conflicts: {answer}");
    server.stop().await;
}
