//! Custom resources through the life of their definitions.

use muster_apiserver::Options;
use serde_json::{Value, json};

use crate::harness::{Server, ask, create, until};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const THING: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.test.example";
const THINGS: &str = "/apis/test.example/v1/namespaces/default/things";
const MERGE: &str = "application/merge-patch+json";

fn version(name: &str, storage: bool) -> Value {
    let color = json!({ "type": "string" });
    let spec = json!({ "type": "object", "properties": { "color": color, "size": { "type": "integer" }, "hot": { "type": "boolean" } } });
    json!({
        "name": name, "served": true, "storage": storage,
        "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": spec } } },
        "selectableFields": [{ "jsonPath": ".spec.color" }, { "jsonPath": ".spec.size" }, { "jsonPath": ".spec.hot" }],
    })
}

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "things.test.example" },
        "spec": {
            "group": "test.example", "scope": "Namespaced", "names": { "plural": "things", "kind": "Thing" },
            "versions": [version("v1", true)],
        },
    })
}

fn thing(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "test.example/v1", "kind": "Thing", "metadata": { "name": name }, "spec": spec })
}

#[tokio::test]
async fn a_definition_goes_with_its_objects_however_it_is_deleted() {
    let server = Server::start().await;
    let client = server.handle.client();
    for path in [THING, DEFINITIONS] {
        create(&client, DEFINITIONS, &definition()).await;
        create(&client, THINGS, &thing("a", &json!({}))).await;
        let (status, answer) = ask(&client, "DELETE", path, "", "").await;
        assert_eq!(status, 200, "{answer}");
        until(&client, THING, |status, _| status == 404).await;
        until(&client, THINGS, |status, _| status == 404).await;
    }
    // A new definition of the same name starts without the objects of the old one.
    create(&client, DEFINITIONS, &definition()).await;
    let (_, list) = ask(&client, "GET", THINGS, "", "").await;
    assert_eq!(list["items"], json!([]));
    server.stop().await;
}

#[tokio::test]
async fn objects_of_versions_that_are_served_no_more_go_too() {
    let server = Server::start().await;
    let client = server.handle.client();
    create(&client, DEFINITIONS, &definition()).await;
    create(&client, THINGS, &thing("a", &json!({}))).await;
    let unserved = json!([{ "op": "replace", "path": "/spec/versions/0/served", "value": false }]);
    let (status, answer) =
        ask(&client, "PATCH", THING, "application/json-patch+json", unserved.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(ask(&client, "GET", THINGS, "", "").await.0, 404);
    assert_eq!(ask(&client, "DELETE", THING, "", "").await.0, 200);
    until(&client, THING, |status, _| status == 404).await;
    server.stop().await;
}

#[tokio::test]
async fn a_deletion_that_a_restart_cut_short_goes_on() {
    let folder = tempfile::tempdir().expect("folder");
    let server = Server::with(Options::new(folder.path())).await;
    let client = server.handle.client();
    create(&client, DEFINITIONS, &definition()).await;
    let mut held = thing("a", &json!({}));
    held["metadata"]["finalizers"] = json!(["test.example/hold"]);
    create(&client, THINGS, &held).await;
    assert_eq!(ask(&client, "DELETE", THING, "", "").await.0, 200);
    let path = format!("{THINGS}/a");
    until(&client, &path, |_, thing| !thing["metadata"]["deletionTimestamp"].is_null()).await;
    server.stop().await;

    let server = Server::with(Options::new(folder.path())).await;
    let client = server.handle.client();
    let (status, answer) =
        ask(&client, "POST", THINGS, "application/json", thing("b", &json!({})).to_string()).await;
    assert_eq!(status, 405, "{answer}");
    let released = json!({ "metadata": { "finalizers": null } }).to_string();
    let (status, answer) = ask(&client, "PATCH", &path, MERGE, released).await;
    assert_eq!(status, 200, "{answer}");
    until(&client, THING, |status, _| status == 404).await;
    server.stop().await;
}

#[tokio::test]
async fn a_definition_cannot_lose_what_its_objects_need() {
    let server = Server::start().await;
    let client = server.handle.client();
    create(&client, DEFINITIONS, &definition()).await;
    let versions = |versions: Value| json!({ "spec": { "versions": versions } });
    for (patch, field) in [
        (json!({ "spec": { "scope": "Cluster" } }), "spec.scope"),
        (json!({ "spec": { "names": { "kind": "Other", "listKind": "OtherList" } } }), "spec.names.kind"),
        (versions(json!([version("v2", true)])), "status.storedVersions[0]"),
    ] {
        let (status, answer) = ask(&client, "PATCH", THING, MERGE, patch.to_string()).await;
        assert_eq!((status, &answer["details"]["causes"][0]["field"]), (422, &json!(field)), "{answer}");
    }
    // Both versions show the same object; what was stored before stays.
    create(&client, THINGS, &thing("a", &json!({ "color": "red" }))).await;
    let both = versions(json!([version("v1", false), version("v2", true)]));
    let (status, answer) = ask(&client, "PATCH", THING, MERGE, both.to_string()).await;
    assert_eq!((status, &answer["status"]["storedVersions"]), (200, &json!(["v1", "v2"])), "{answer}");
    let (_, newer) = ask(&client, "GET", &format!("{THINGS}/a").replace("/v1/", "/v2/"), "", "").await;
    assert_eq!((&newer["apiVersion"], &newer["spec"]["color"]), (&json!("test.example/v2"), &json!("red")));
    server.stop().await;
}

#[tokio::test]
async fn selectable_fields_select_by_their_text() {
    let server = Server::start().await;
    let client = server.handle.client();
    create(&client, DEFINITIONS, &definition()).await;
    create(&client, THINGS, &thing("a", &json!({ "color": "red", "size": 3, "hot": true }))).await;
    create(&client, THINGS, &thing("b", &json!({ "color": "blue" }))).await;
    for (selector, wanted) in [
        ("spec.color=red", &["a"][..]),
        ("spec.color!=red", &["b"]),
        ("spec.size=3", &["a"]),
        ("spec.hot=true", &["a"]),
        ("spec.color=red,metadata.name=b", &[]),
        ("spec.size=", &["b"]),
    ] {
        let encoded = selector.replace('=', "%3D");
        let (status, list) = ask(&client, "GET", &format!("{THINGS}?fieldSelector={encoded}"), "", "").await;
        assert_eq!(status, 200, "{list}");
        let items = list["items"].as_array().expect("items").iter();
        let names: Vec<&str> = items.filter_map(|item| item["metadata"]["name"].as_str()).collect();
        assert_eq!(names, wanted, "{selector}");
    }
    let (status, answer) =
        ask(&client, "GET", &format!("{THINGS}?fieldSelector=spec.shape%3Dx"), "", "").await;
    assert_eq!((status, &answer["message"]), (400, &json!("field label not supported: spec.shape")));
    server.stop().await;
}
