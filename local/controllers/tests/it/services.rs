use std::time::Instant;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

use crate::harness::{Cluster, set};

/// Those of the test's service: the API server has one of its own in the same namespace.
fn of_workers<K: ResourceExt>(all: &[K]) -> impl Iterator<Item = &K> {
    all.iter().filter(|object| object.name_any().starts_with("workers"))
}

fn is_ready(slices: &[EndpointSlice]) -> bool {
    let endpoints = of_workers(slices).flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints
        .into_iter()
        .any(|one| one.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true))
}

#[tokio::test]
async fn a_headless_service_follows_its_pods() {
    let cluster = Cluster::start().await;
    cluster
        .create::<Service>(json!({
            "metadata": { "name": "workers" },
            "spec": { "clusterIP": "None", "selector": { "app": "w" }, "ports": [{ "port": 80, "targetPort": "http" }] },
        }))
        .await;
    let slices = cluster.api::<EndpointSlice>();
    cluster.until(slices.clone(), "an empty slice", |all| of_workers(all).count() == 1).await;
    cluster
        .create::<Pod>(json!({
            "metadata": { "name": "w-0", "labels": { "app": "w" } },
            "spec": {
                "hostname": "w-0", "subdomain": "workers",
                "containers": [{ "name": "c", "image": "i", "ports": [{ "name": "http", "containerPort": 8080 }] }],
            },
        }))
        .await;
    let ready = json!({
        "phase": "Running", "podIP": "10.0.0.3", "podIPs": [{ "ip": "10.0.0.3" }],
        "conditions": [{ "type": "Ready", "status": "True" }],
    });
    let start = Instant::now();
    set(&cluster.api::<Pod>(), "w-0", ready).await;
    let state = cluster.until(slices.clone(), "a ready endpoint", is_ready).await;
    eprintln!("endpoint ready after {:?}", start.elapsed());
    let [slice] = of_workers(&state).collect::<Vec<_>>()[..] else { panic!("one slice: {state:#?}") };
    assert!(slice.name_any().starts_with("workers-"));
    assert_eq!(slice.labels()["kubernetes.io/service-name"], "workers");
    assert_eq!(slice.labels()["service.kubernetes.io/headless"], "");
    let endpoint = &slice.endpoints.as_ref().expect("endpoints")[0];
    assert_eq!((endpoint.addresses[0].as_str(), endpoint.hostname.as_deref()), ("10.0.0.3", Some("w-0")));
    assert_eq!(slice.ports.as_ref().expect("ports")[0].port, Some(8080));

    let objects = cluster.api::<Endpoints>();
    let listed = |all: &[Endpoints]| {
        let subsets = all.iter().flat_map(|object| object.subsets.iter().flatten());
        subsets.flat_map(|subset| subset.addresses.iter().flatten()).any(|address| address.ip == "10.0.0.3")
    };
    cluster.until(objects.clone(), "endpoints beside the slice", listed).await;

    let services = cluster.api::<Service>();
    services.delete("workers", &DeleteParams::background()).await.expect("deleted");
    cluster.until(slices, "no slices", |all| of_workers(all).next().is_none()).await;
    cluster.until(objects, "no endpoints", |all| of_workers(all).next().is_none()).await;
    cluster.stop().await;
}
