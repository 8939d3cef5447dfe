//! Bad input gets a clear error and changes nothing.

use bytes::Bytes;
use http::{Method, StatusCode};
use muster_scheduler_extender::client::CallError;
use muster_scheduler_extender::server::{Options, ServeError};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Extender, InMemory, arguments, pod};

fn said(body: &[u8]) -> String {
    serde_json::from_slice::<Value>(body).unwrap()["Error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn malformed_bodies_are_refused_on_a_connection_that_lives_on() {
    let extender = Extender::with_nodes(&["a"], 1).await;
    let mut client = extender.client().await;
    for verb in ["filter", "prioritize", "preempt", "bind"] {
        for body in ["", "nonsense", "{\"Pod\":", "[]", "{}", "{\"Pod\":{\"metadata\":{\"name\":7}}}"] {
            let path = format!("/{verb}");
            let (status, answer) =
                client.request(Method::POST, &path, Bytes::from_static(body.as_bytes())).await.unwrap();
            assert_eq!(status, StatusCode::BAD_REQUEST, "{verb} {body}");
            assert!(!said(&answer).is_empty(), "{verb} {body}");
        }
    }
    let own = pod("d", "p", "u", 1);
    extender.see(own.clone());
    assert_eq!(client.filter(&arguments(&own, &["a"])).await.unwrap().node_names, Some(vec!["a".to_owned()]));
}

#[tokio::test]
async fn unknown_nodes_pods_and_verbs_are_named() {
    let extender = Extender::with_nodes(&["a"], 1).await;
    let mut client = extender.client().await;
    let own = pod("d", "p", "u", 1);
    extender.see(own.clone());
    let some = client.filter(&arguments(&own, &["a", "nowhere"])).await.unwrap();
    assert_eq!(some.node_names, Some(vec!["a".to_owned()]));
    assert!(some.failed_and_unresolvable_nodes["nowhere"].contains("not a node"));
    let none = client.filter(&arguments(&own, &["nowhere"])).await.unwrap();
    assert!(none.error.contains("none of the 1 offered nodes is known, such as nowhere"), "{none:?}");
    let stranger = client.filter(&arguments(&pod("d", "x", "x", 1), &["a"])).await.unwrap();
    assert!(stranger.error.contains("not known yet"), "{stranger:?}");
    assert!(
        client.bind("d", "p", "u", "nowhere").await.unwrap().contains("no plan has pod d/p on node nowhere")
    );
    assert!(client.bind("d", "p", "other", "a").await.unwrap().contains("not known"));
    let (status, _) = client.request(Method::POST, "/evict", Bytes::new()).await.unwrap();
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(extender.cluster.bindings.lock().is_empty());
}

#[tokio::test]
async fn a_body_of_a_hundred_megabytes_is_refused_before_it_is_sent() {
    let extender = Extender::with_nodes(&["a"], 1).await;
    let mut stream = tokio::net::TcpStream::connect(extender.handle.address()).await.unwrap();
    let head = "POST /filter HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains(r#"{"Error":"the body has more than"#), "{answer}");
}

#[tokio::test]
async fn nothing_is_answered_before_everything_is_listed() {
    let extender = Extender::start().await;
    let mut client = extender.client().await;
    let own = pod("d", "p", "u", 1);
    extender.see(own.clone());
    let Err(CallError::Status { status, body }) = client.filter(&arguments(&own, &["a"])).await else {
        panic!("answered")
    };
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(said(body.as_bytes()).contains("not synced"));
    let (status, _) = client.request(Method::GET, "/readyz", Bytes::new()).await.unwrap();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(client.bind("d", "p", "u", "a").await.is_err());
}

#[tokio::test]
async fn plain_http_is_for_loopback_only() {
    let cluster = std::sync::Arc::default();
    let options =
        Options::loopback(muster_scheduler_core::Ledger::default(), std::sync::Arc::new(InMemory(cluster)));
    let listen = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    let refused = Options { listen, ..options }.build().await;
    assert!(matches!(refused, Err(ServeError::NeedsTls(_))));
}
