//! Whatever is sent, the server answers, and every refusal is a `Status`.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use crate::harness::{Raw, Server};

fn path() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "api",
        "apis",
        "v1",
        "apps",
        "namespaces",
        "default",
        "pods",
        "configmaps",
        "deployments",
        "status",
        "scale",
        "binding",
        "log",
        "watch",
        "a",
        "%2e%2e",
        "%ff",
        "",
        "customresourcedefinitions",
        "apiextensions.k8s.io",
    ]);
    prop::collection::vec(word, 1..8).prop_map(|words| format!("/{}", words.join("/")))
}

fn query() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "limit",
        "continue",
        "labelSelector",
        "fieldSelector",
        "resourceVersion",
        "resourceVersionMatch",
        "dryRun",
        "fieldValidation",
        "fieldManager",
        "force",
        "propagationPolicy",
        "gracePeriodSeconds",
        "sendInitialEvents",
    ]);
    let value = prop::string::string_regex("[a-zA-Z0-9=!,()%-]{0,12}").expect("pattern");
    prop::collection::vec((key, value), 0..4).prop_map(|pairs| {
        pairs
            .into_iter()
            .map(|(key, value)| format!("{key}={}", value.replace('%', "%25")))
            .collect::<Vec<_>>()
            .join("&")
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let json = prop::sample::select(vec![
        "{}",
        "[]",
        "null",
        "{\"metadata\":5}",
        "{\"metadata\":{\"name\":[]}}",
        "{\"spec\":{\"replicas\":\"x\"}}",
        "{\"metadata\":{\"name\":\"a\",\"labels\":7},\"data\":{\"a\":{}}}",
        "[{\"op\":\"add\",\"path\":\"/x/-1\"}]",
    ]);
    prop_oneof![json.prop_map(|text| text.as_bytes().to_vec()), prop::collection::vec(any::<u8>(), 0..64)]
}

#[test]
fn every_request_is_answered_with_an_object_or_a_status() {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let server = runtime.block_on(Server::start());
    let raw = Raw::new(&server);
    let method = prop::sample::select(vec!["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);
    let media = prop::sample::select(vec![
        "application/json",
        "application/yaml",
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
        "application/vnd.kubernetes.protobuf",
        "text/plain",
    ]);
    let requests = (method, path(), query(), media, body());
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() });
    let outcome = runner.run(&requests, |(method, path, query, media, body)| {
        let request = Request::builder()
            .method(method)
            .uri(format!("{path}?{query}&timeoutSeconds=1"))
            .header("host", "localhost")
            .header("authorization", format!("Bearer {}", raw.token))
            .header("content-type", media)
            .body(Full::new(Bytes::from(body)))
            .expect("request");
        let (status, text) = runtime.block_on(async {
            let response = raw.send(request).await;
            let status = response.status().as_u16();
            (status, response.into_body().collect().await.expect("body").to_bytes())
        });
        if status >= 400 && &text[..] != b"404 page not found\n" {
            let answer: Value = serde_json::from_slice(&text).expect("a Status");
            prop_assert_eq!(&answer["kind"], "Status");
            prop_assert_eq!(&answer["code"], status);
        }
        Ok(())
    });
    runtime.block_on(server.stop());
    outcome.expect("answers");
}
