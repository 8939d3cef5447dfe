//! A server that ends and starts again in the same folder.

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use muster_apiserver::Options;
use serde_json::json;

use crate::harness::{DEADLINE, Raw, Server};

#[tokio::test]
async fn certificates_tokens_and_objects_survive() {
    let folder = tempfile::tempdir().expect("folder");
    let server = Server::with(Options::new(folder.path())).await;
    let (authority, token) =
        (std::fs::read(folder.path().join("pki/ca.crt")).expect("ca"), Raw::new(&server).token);
    let maps: Api<ConfigMap> = Api::namespaced(server.remote().await, "default");
    let map = serde_json::from_value(json!({ "metadata": { "name": "a" } })).expect("map");
    let made = maps.create(&PostParams::default(), &map).await.expect("created");
    let before = maps
        .list(&kube::api::ListParams::default())
        .await
        .expect("list")
        .metadata
        .resource_version
        .expect("version");
    server.stop().await;

    let server = Server::with(Options::new(folder.path())).await;
    assert_eq!(std::fs::read(folder.path().join("pki/ca.crt")).expect("ca"), authority);
    assert_eq!(Raw::new(&server).token, token);
    let maps: Api<ConfigMap> = Api::namespaced(server.remote().await, "default");
    assert_eq!(maps.get("a").await.expect("kept").metadata.uid, made.metadata.uid);
    // A watch goes on where the one before the restart ended.
    let mut events = maps.watch(&WatchParams::default(), &before).await.expect("watch").boxed();
    let map = serde_json::from_value(json!({ "metadata": { "name": "b" } })).expect("map");
    maps.create(&PostParams::default(), &map).await.expect("created");
    let event = tokio::time::timeout(DEADLINE, events.try_next()).await.expect("in time").expect("event");
    assert!(matches!(event, Some(WatchEvent::Added(map)) if map.metadata.name.as_deref() == Some("b")));
    server.stop().await;
}
