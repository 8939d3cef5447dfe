use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;

use crate::harness::Cluster;

#[tokio::test]
async fn a_new_namespace_is_furnished() {
    let cluster = Cluster::start().await;
    let accounts: Api<ServiceAccount> = Api::all(cluster.client.clone());
    let everywhere = |all: &[ServiceAccount]| {
        let owns = |namespace: &str| all.iter().any(|one| one.namespace().as_deref() == Some(namespace));
        owns("default") && owns("kube-system")
    };
    cluster.until(accounts, "default accounts", everywhere).await;
    let maps = cluster.api::<ConfigMap>();
    let authority = |all: &[ConfigMap]| all.iter().any(|map| map.name_any() == "kube-root-ca.crt");
    let found = cluster.until(maps, "authority", authority).await;
    assert_eq!(found[0].data.as_ref().expect("data")["ca.crt"], "authority");
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
