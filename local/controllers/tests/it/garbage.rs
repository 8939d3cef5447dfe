use std::time::Instant;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PropagationPolicy};
use kube::{Resource as _, ResourceExt as _};
use serde_json::{Value, json};

use crate::harness::{Cluster, DEADLINE};

async fn map(cluster: &Cluster, name: &str, owner: Option<&ConfigMap>) -> ConfigMap {
    let owners: Vec<Value> = owner
        .map(|owner| {
            json!({
                "apiVersion": "v1", "kind": "ConfigMap", "name": owner.name_any(), "uid": owner.uid(),
                "blockOwnerDeletion": true,
            })
        })
        .into_iter()
        .collect();
    cluster.create(json!({ "metadata": { "name": name, "ownerReferences": owners } })).await
}

fn named(objects: &[ConfigMap], name: &str) -> bool {
    objects.iter().any(|object| object.name_any() == name)
}

#[tokio::test]
async fn dependents_go_after_their_owner_in_the_background() {
    let cluster = Cluster::start().await;
    let maps = cluster.api::<ConfigMap>();
    let owner = map(&cluster, "owner", None).await;
    let child = map(&cluster, "child", Some(&owner)).await;
    map(&cluster, "grandchild", Some(&child)).await;
    maps.delete("owner", &DeleteParams::background()).await.expect("deleted");
    let start = Instant::now();
    cluster.until(maps, "all gone", |all| !named(all, "child") && !named(all, "grandchild")).await;
    eprintln!("two levels collected in {:?}", start.elapsed());
    cluster.stop().await;
}

#[tokio::test]
async fn a_foreground_deletion_ends_with_the_owner() {
    let cluster = Cluster::start().await;
    let maps = cluster.api::<ConfigMap>();
    let owner = map(&cluster, "owner", None).await;
    let child = map(&cluster, "child", Some(&owner)).await;
    let hold = json!({ "metadata": { "finalizers": ["test.dev/hold"] } });
    maps.patch(&child.name_any(), &PatchParams::default(), &Patch::Merge(hold)).await.expect("held");
    maps.delete("owner", &DeleteParams::foreground()).await.expect("deleted");
    let deleting = |all: &[ConfigMap]| {
        all.iter().any(|map| map.name_any() == "child" && map.meta().deletion_timestamp.is_some())
    };
    let state = cluster.until(maps.clone(), "child is being deleted", deleting).await;
    assert!(named(&state, "owner"), "the owner waits for its dependent");
    let free = json!({ "metadata": { "finalizers": null } });
    maps.patch("child", &PatchParams::default(), &Patch::Merge(free)).await.expect("freed");
    cluster.until(maps, "all gone", |all| !named(all, "child") && !named(all, "owner")).await;
    cluster.stop().await;
}

#[tokio::test]
async fn orphans_lose_their_owner_and_stay() {
    let cluster = Cluster::start().await;
    let maps = cluster.api::<ConfigMap>();
    let owner = map(&cluster, "owner", None).await;
    map(&cluster, "child", Some(&owner)).await;
    let orphan =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    maps.delete("owner", &orphan).await.expect("deleted");
    let state = cluster.until(maps, "owner gone", |all| !named(all, "owner")).await;
    let child = state.iter().find(|map| map.name_any() == "child").expect("child stays");
    assert!(child.owner_references().is_empty());
    cluster.stop().await;
}

#[tokio::test]
async fn an_object_with_an_owner_that_never_was_is_collected() {
    let cluster = Cluster::start().await;
    let mut owner = map(&cluster, "owner", None).await;
    owner.metadata.uid = Some("11111111-2222-3333-4444-555555555555".into());
    map(&cluster, "child", Some(&owner)).await;
    let state = cluster.until(cluster.api(), "child gone", |all| !named(all, "child")).await;
    assert!(named(&state, "owner"));
    cluster.stop().await;
}

#[tokio::test]
async fn custom_objects_are_collected_as_soon_as_their_kind_is_served() {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use kube::Api;
    use kube::core::{ApiResource, DynamicObject, GroupVersionKind};

    let cluster = Cluster::start().await;
    let owner = map(&cluster, "owner", None).await;
    let definition = json!({
        "metadata": { "name": "things.test.dev" },
        "spec": {
            "group": "test.dev", "scope": "Namespaced",
            "names": { "plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList" },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object" } },
            }],
        },
    });
    let definition: CustomResourceDefinition = serde_json::from_value(definition).expect("definition");
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    definitions.create(&kube::api::PostParams::default(), &definition).await.expect("defined");
    cluster
        .until(definitions, "established", |all| {
            let conditions =
                all.iter().flat_map(|one| &one.status).flat_map(|status| &status.conditions).flatten();
            conditions
                .into_iter()
                .any(|condition| condition.type_ == "Established" && condition.status == "True")
        })
        .await;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("test.dev", "v1", "Thing"));
    let things: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), "default", &resource);
    let mut thing = DynamicObject::new("thing", &resource);
    thing.metadata.owner_references = Some(vec![owner.owner_ref(&()).expect("reference")]);
    let thing = things.create(&kube::api::PostParams::default(), &thing).await.expect("created");
    cluster.api::<ConfigMap>().delete("owner", &DeleteParams::background()).await.expect("deleted");
    let uid = thing.uid().expect("uid");
    let deleted = kube::runtime::conditions::is_deleted(&uid);
    let gone = kube::runtime::wait::await_condition(things, "thing", deleted);
    tokio::time::timeout(DEADLINE, gone).await.expect("collected in time").expect("watched");
    cluster.stop().await;
}
