use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;

use crate::harness::Cluster;

#[tokio::test]
async fn a_namespace_keeps_its_default_account() {
    let cluster = Cluster::start().await;
    let accounts = cluster.api::<ServiceAccount>();
    let has_default = |all: &[ServiceAccount]| all.iter().any(|one| one.name_any() == "default");
    let first = cluster.until(accounts.clone(), "the account", has_default).await.remove(0);
    accounts.delete("default", &DeleteParams::default()).await.expect("deleted");
    let again = |all: &[ServiceAccount]| has_default(all) && all[0].uid() != first.uid();
    cluster.until(accounts, "the account again", again).await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_ending_namespace_waits_for_finalizers_and_says_so() {
    let cluster = Cluster::start().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = serde_json::from_value(json!({ "metadata": { "name": "gone" } })).expect("namespace");
    namespaces.create(&PostParams::default(), &namespace).await.expect("created");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "gone");
    let map = json!({ "metadata": { "name": "hold", "finalizers": ["test.dev/hold"] } });
    let map = serde_json::from_value(map).expect("map");
    maps.create(&PostParams::default(), &map).await.expect("held");
    namespaces.delete("gone", &DeleteParams::default()).await.expect("deleted");
    let waits = |all: &[Namespace]| {
        let conditions =
            all.iter().flat_map(|one| &one.status).flat_map(|status| &status.conditions).flatten();
        conditions.into_iter().any(|condition| {
            let text = "Some content in the namespace has finalizers remaining: test.dev/hold in 1 resource instances";
            condition.message.as_deref() == Some(text)
        })
    };
    cluster.until(namespaces.clone(), "the condition", waits).await;
    let held = maps.get("hold").await.expect("still there");
    assert!(held.meta().deletion_timestamp.is_some());
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    maps.patch("hold", &PatchParams::default(), &free).await.expect("freed");
    cluster.until(namespaces, "gone", |all| all.iter().all(|one| one.name_any() != "gone")).await;
    cluster.stop().await;
}
