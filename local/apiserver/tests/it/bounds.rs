//! Bodies and objects that are too large are refused, and the server goes on.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

use crate::harness::{DEADLINE, Raw, Server, ask, create};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const THINGS: &str = "/apis/demo.example/v1/namespaces/default/things";
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const BODY_LIMIT: usize = 3 << 20;

fn too_large(answer: &Value) {
    assert_eq!(answer["kind"], "Status", "{answer}");
    assert_eq!(answer["reason"], "RequestEntityTooLarge");
    assert_eq!(answer["message"], "Request entity too large: limit is 3145728");
    assert_eq!(answer["code"], 413);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_over_the_wire_however_large() {
    let server = Server::start().await;
    let raw = Raw::new(&server);
    for size in [BODY_LIMIT + 1, 4 * BODY_LIMIT] {
        let request = Request::post(MAPS)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {}", raw.token))
            .header("content-type", JSON)
            .body(Full::new(Bytes::from(vec![b' '; size])));
        let response = raw.send(request.expect("request")).await;
        assert_eq!(response.status(), 413);
        let body = tokio::time::timeout(DEADLINE, response.into_body().collect()).await.expect("in time");
        too_large(&serde_json::from_slice(&body.expect("body").to_bytes()).expect("a status"));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_connection_outlives_a_body_over_the_limit() {
    let server = Server::start().await;
    let client = server.remote().await;
    let maps = format!("{MAPS}?fieldManager=test");
    for (method, path, media) in [
        ("POST", maps.as_str(), JSON),
        ("PUT", &format!("{MAPS}/a"), JSON),
        ("PATCH", &format!("{MAPS}/a"), MERGE),
    ] {
        let (status, answer) = ask(&client, method, path, media, " ".repeat(BODY_LIMIT + 1)).await;
        assert_eq!(status, 413, "{method}: {answer}");
        too_large(&answer);
        let (status, answer) = ask(&client, "GET", MAPS, "", "").await;
        assert_eq!(status, 200, "{answer}");
    }
    server.stop().await;
}

async fn define_things(client: &kube::Client) {
    let spec = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "things.demo.example" },
        "spec": {
            "group": "demo.example", "scope": "Namespaced", "names": { "kind": "Thing", "plural": "things" },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": spec } } },
            }],
        },
    });
    create(client, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await;
}

fn thing(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "demo.example/v1", "kind": "Thing", "metadata": { "name": name }, "spec": spec })
}

fn refused_by_store((status, answer): (u16, Value)) {
    assert_eq!(status, 500, "{answer}");
    assert_eq!(answer["message"], "etcdserver: request is too large");
}

#[tokio::test]
async fn an_object_stays_below_the_limit_of_the_store_however_it_grows() {
    let server = Server::start().await;
    let client = server.handle.client();
    define_things(&client).await;
    let large = thing("large", &json!({ "text": "x".repeat(2 << 20) }));
    refused_by_store(ask(&client, "POST", THINGS, JSON, large.to_string()).await);
    let (status, _) = ask(&client, "GET", &format!("{THINGS}/large"), "", "").await;
    assert_eq!(status, 404);

    create(&client, THINGS, &thing("grown", &json!({ "part0": "x".repeat(600 << 10) }))).await;
    let path = format!("{THINGS}/grown");
    let part =
        |number: u32| json!({ "spec": { format!("part{number}"): "x".repeat(600 << 10) } }).to_string();
    let (status, answer) = ask(&client, "PATCH", &path, MERGE, part(1)).await;
    assert_eq!(status, 200, "{answer}");
    let version = answer["metadata"]["resourceVersion"].clone();
    refused_by_store(ask(&client, "PATCH", &path, MERGE, part(2)).await);
    // A patch of a few bytes, too.
    let copy = json!([{ "op": "copy", "from": "/spec/part0", "path": "/spec/part2" }]).to_string();
    refused_by_store(ask(&client, "PATCH", &path, "application/json-patch+json", copy).await);
    let applied = thing("grown", &json!({ "part2": "x".repeat(600 << 10) })).to_string();
    let apply = format!("{path}?fieldManager=other");
    refused_by_store(ask(&client, "PATCH", &apply, "application/apply-patch+yaml", applied).await);
    let mut replaced = answer.clone();
    replaced["spec"]["part2"] = "x".repeat(600 << 10).into();
    refused_by_store(ask(&client, "PUT", &path, JSON, replaced.to_string()).await);

    let (_, kept) = ask(&client, "GET", &path, "", "").await;
    assert_eq!(kept["metadata"]["resourceVersion"], version, "nothing was written");
    let (status, answer) = ask(&client, "DELETE", &path, "", "").await;
    assert_eq!(status, 200, "{answer}");
    server.stop().await;
}
