//! Namespaces that end: nothing new, old things go, finalizers hold. The controller that empties a namespace is not
//! here; its tests are with it.

use serde_json::{Value, json};

use crate::harness::{Server, ask, create};

const NAMESPACES: &str = "/api/v1/namespaces";
const MAPS: &str = "/api/v1/namespaces/ending/configmaps";
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

fn map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "a": "1" } })
}

/// A namespace with one object in it, whose deletion has begun.
async fn ending(client: &kube::Client) -> Value {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "ending" } });
    create(client, NAMESPACES, &namespace).await;
    create(client, MAPS, &map("old")).await;
    let (status, answer) = ask(client, "DELETE", &format!("{NAMESPACES}/ending"), "", "").await;
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test]
async fn nothing_is_created_in_a_namespace_that_ends_but_what_is_there_can_be_changed() {
    let server = Server::start().await;
    let client = server.handle.client();
    let namespace = ending(&client).await;
    assert_eq!(namespace["status"]["phase"], "Terminating");
    assert!(namespace["metadata"]["deletionTimestamp"].is_string());
    let why = "configmaps \"new\" is forbidden: unable to create new content in namespace ending because it is \
               being terminated";
    let cause = json!([{
        "reason": "NamespaceTerminating", "message": "namespace ending is being terminated",
        "field": "metadata.namespace",
    }]);
    let apply = format!("{MAPS}/new?fieldManager=test");
    for (method, path, media) in [("POST", MAPS, JSON), ("PATCH", &apply, "application/apply-patch+yaml")] {
        let (status, answer) = ask(&client, method, path, media, map("new").to_string()).await;
        assert_eq!((status, &answer["reason"]), (403, &json!("Forbidden")), "{answer}");
        assert_eq!(answer["message"], why);
        assert_eq!(answer["details"]["causes"], cause);
    }
    let (status, answer) =
        ask(&client, "PATCH", &format!("{MAPS}/old"), MERGE, r#"{"data":{"a":"2"}}"#).await;
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = ask(&client, "DELETE", &format!("{MAPS}/old"), "", "").await;
    assert_eq!(status, 200, "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_namespace_is_there_until_its_last_finalizer_goes() {
    let server = Server::start().await;
    let client = server.handle.client();
    let mut namespace = ending(&client).await;
    assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
    let path = format!("{NAMESPACES}/ending");
    let hold = json!({ "metadata": { "finalizers": ["test.example/hold"] } }).to_string();
    let (status, answer) = ask(&client, "PATCH", &path, MERGE, hold).await;
    assert_eq!(status, 422, "no finalizer is added to what ends: {answer}");
    // A second deletion changes nothing.
    let (status, answer) = ask(&client, "DELETE", &path, "", "").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["metadata"]["deletionTimestamp"], namespace["metadata"]["deletionTimestamp"]);
    // The spec's finalizers go through the subresource alone.
    namespace["spec"]["finalizers"] = json!([]);
    let (status, answer) =
        ask(&client, "PUT", &format!("{path}/finalize"), JSON, namespace.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    let (status, _) = ask(&client, "GET", &path, "", "").await;
    assert_eq!(status, 404);
    server.stop().await;
}

#[tokio::test]
async fn the_clusters_own_namespaces_cannot_end() {
    let server = Server::start().await;
    let client = server.handle.client();
    for name in ["default", "kube-system", "kube-public"] {
        let (status, answer) = ask(&client, "DELETE", &format!("{NAMESPACES}/{name}"), "", "").await;
        assert_eq!(status, 403, "{answer}");
        assert_eq!(answer["reason"], "Forbidden");
    }
    server.stop().await;
}
