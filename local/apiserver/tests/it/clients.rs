//! What kube-rs and kubectl do with the server.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{
    Api, DeleteParams, ListParams, PartialObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;

use crate::harness::{DEADLINE, Server};

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name }, "data": { "a": "1" } })).expect("config map")
}

#[tokio::test]
async fn objects_are_created_changed_and_deleted_over_tls() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.remote().await, "default");
    let made = maps.create(&PostParams::default(), &config_map("a")).await.expect("created");
    assert!(made.metadata.uid.is_some());
    let patch = Patch::Merge(json!({ "data": { "b": "2" } }));
    let patched = maps.patch("a", &PatchParams::default(), &patch).await.expect("patched");
    assert_eq!(patched.data, Some(BTreeMap::from([("a".into(), "1".into()), ("b".into(), "2".into())])));
    let stale = maps.replace("a", &PostParams::default(), &made).await.expect_err("stale version");
    assert!(matches!(stale, kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict"));
    maps.delete("a", &DeleteParams::default()).await.expect("deleted");
    assert!(maps.get_opt("a").await.expect("asked").is_none());
    server.stop().await;
}

#[tokio::test]
async fn the_inner_client_and_the_outer_one_see_the_same() {
    let server = Server::start().await;
    let inner: Api<Namespace> = Api::all(server.handle.client());
    let outer: Api<Namespace> = Api::all(server.remote().await);
    let names = |list: kube::api::ObjectList<Namespace>| -> Vec<_> {
        list.items.into_iter().filter_map(|namespace| namespace.metadata.name).collect()
    };
    let inside = names(inner.list(&ListParams::default()).await.expect("inner"));
    assert_eq!(inside, names(outer.list(&ListParams::default()).await.expect("outer")));
    assert!(inside.contains(&"kube-system".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn a_selector_watch_sees_objects_come_and_go() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.remote().await, "default");
    let params = WatchParams::default().labels("keep=yes");
    let mut events = maps.watch(&params, "0").await.expect("watch").boxed();
    maps.create(&PostParams::default(), &config_map("a")).await.expect("created");
    for keep in ["yes", "no"] {
        let patch = Patch::Merge(json!({ "metadata": { "labels": { "keep": keep } } }));
        maps.patch("a", &PatchParams::default(), &patch).await.expect("patched");
    }
    let mut next =
        async || tokio::time::timeout(DEADLINE, events.try_next()).await.expect("in time").expect("event");
    assert!(matches!(next().await, Some(WatchEvent::Added(_))));
    assert!(matches!(next().await, Some(WatchEvent::Deleted(_))));
    server.stop().await;
}

#[tokio::test]
async fn watchers_of_both_kinds_start_with_what_is_there() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.handle.client(), "default");
    maps.create(&PostParams::default(), &config_map("a")).await.expect("created");
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut applied = watcher(maps.clone(), config).applied_objects().boxed();
        let first =
            tokio::time::timeout(DEADLINE, applied.try_next()).await.expect("in time").expect("event");
        assert!(first.expect("object").metadata.name.is_some());
    }
    server.stop().await;
}

#[tokio::test]
async fn applied_fields_have_owners() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.handle.client(), "default");
    let wanted = |value: &str| {
        Patch::Apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": { "a": value },
        }))
    };
    maps.patch("a", &PatchParams::apply("one"), &wanted("1")).await.expect("applied");
    let refused = maps.patch("a", &PatchParams::apply("two"), &wanted("2")).await.expect_err("conflict");
    assert!(
        matches!(refused, kube::Error::Api(status) if status.code == 409 && status.message.contains("one"))
    );
    let taken = maps.patch("a", &PatchParams::apply("two").force(), &wanted("2")).await.expect("forced");
    assert_eq!(taken.data.and_then(|data| data.get("a").cloned()).as_deref(), Some("2"));
    server.stop().await;
}

#[tokio::test]
async fn a_finalizer_holds_an_object_until_it_is_taken_off() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.handle.client(), "default");
    maps.create(&PostParams::default(), &config_map("a")).await.expect("created");
    let reconcile = async |map: ConfigMap| {
        kube::runtime::finalizer(&maps, "test.example/hold", Arc::new(map), async |_event| {
            Ok::<_, std::convert::Infallible>(kube::runtime::controller::Action::await_change())
        })
        .await
    };
    reconcile(maps.get("a").await.expect("read")).await.expect("held");
    maps.delete("a", &DeleteParams::default()).await.expect("deletion asked for");
    let held = maps.get("a").await.expect("still there");
    assert!(held.metadata.deletion_timestamp.is_some());
    reconcile(held).await.expect("let go");
    assert!(maps.get_opt("a").await.expect("asked").is_none());
    server.stop().await;
}

#[tokio::test]
async fn owners_are_told_by_metadata_alone() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.remote().await, "default");
    maps.create(&PostParams::default(), &config_map("a")).await.expect("created");
    let metadata: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(server.remote().await, "default");
    let config = watcher::Config::default().fields("metadata.name=a");
    let mut seen = watcher(metadata, config).applied_objects().boxed();
    let first = tokio::time::timeout(DEADLINE, seen.try_next()).await.expect("in time").expect("event");
    let types = first.expect("object").types.expect("types");
    assert_eq!(types.kind, "PartialObjectMetadata");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_lists_creates_and_deletes() {
    if Command::new("kubectl").arg("version").arg("--client").output().is_err() {
        eprintln!("skipped: kubectl is not on PATH");
        return;
    }
    let server = Server::start().await;
    let kubeconfig = server.handle.kubeconfig_path().to_owned();
    let cache = tempfile::tempdir().expect("cache");
    let run = |arguments: &[&str]| {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&kubeconfig).arg("--cache-dir").arg(cache.path()).args(arguments);
        let output = command.output().expect("kubectl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "kubectl {arguments:?}: {error}");
        text
    };
    assert!(run(&["get", "namespaces"]).contains("kube-system"));
    run(&["create", "configmap", "c", "--from-literal=a=1"]);
    assert!(run(&["get", "configmap", "c", "-o", "jsonpath={.data.a}"]).contains('1'));
    run(&["label", "configmap", "c", "x=y"]);
    assert!(run(&["get", "configmaps", "-l", "x=y"]).contains('c'));
    run(&["delete", "configmap", "c"]);
    server.stop().await;
}
