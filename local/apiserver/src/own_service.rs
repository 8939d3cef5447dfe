//! The service `kubernetes` in `default`, under which pods find this server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use muster_store::ObjectKey;
use serde_json::{Value, json};

use crate::app::App;
use crate::bootstrap::ensure;
use crate::meta::{meta_mut, set_at};
use crate::objects::{Ownership, Part, Scope};
use crate::request::WriteOptions;
use crate::status::ApiResult;

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";
/// The first address of the services' range: nodes answer for it, and no other service is given it.
const CLUSTER_ADDRESS: &str = "10.96.0.1";
/// How soon an object that somebody deleted or changed is put right, as in Kubernetes.
const INTERVAL: Duration = Duration::from_secs(10);

/// Group, version and plural name of a resource, and the object as far as this module says what is in it.
type Wanted = ((&'static str, &'static str, &'static str), Value);

/// The service and its endpoints in their two forms.
fn wanted(server: SocketAddr) -> [Wanted; 3] {
    // Whoever listens everywhere is reached on loopback, too.
    let address = match server.ip() {
        IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        address => address,
    };
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let port = json!({ "name": "https", "port": server.port(), "protocol": "TCP" });
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": NAME, "labels": { "component": "apiserver", "provider": "kubernetes" } },
        "spec": {
            "clusterIP": CLUSTER_ADDRESS, "type": "ClusterIP", "sessionAffinity": "None",
            "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": server.port() }],
        },
    });
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": { "name": NAME, "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" } },
        "subsets": [{ "addresses": [{ "ip": address }], "ports": [port] }],
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": NAME, "labels": { "kubernetes.io/service-name": NAME } },
        "addressType": family, "ports": [port],
        "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
    });
    [
        (("", "v1", "services"), service),
        (("", "v1", "endpoints"), endpoints),
        (("discovery.k8s.io", "v1", "endpointslices"), slice),
    ]
}

/// Creates what is missing and puts the ports and addresses right: a server that starts anew may listen elsewhere.
pub(crate) async fn put_right(app: &Arc<App>) -> ApiResult<()> {
    let Some(server) = app.address.get() else { return Ok(()) };
    for (resource, object) in wanted(*server) {
        ensure(app, resource, NAMESPACE, object.clone(), "kube-apiserver").await?;
        replace(app, resource, &object).await?;
    }
    Ok(())
}

/// Overwrites the fields of the stored object that this module gives; nothing is written when they are as wanted.
async fn replace(
    app: &Arc<App>,
    (group, version, plural): (&str, &str, &str),
    wanted: &Value,
) -> ApiResult<()> {
    let Some(resource) = app.registry.snapshot().find(group, version, plural) else { return Ok(()) };
    if app.store.get(&ObjectKey::new(resource.storage_key.clone(), NAMESPACE, NAME)).is_none() {
        return Ok(());
    }
    let options = WriteOptions::default();
    let mut scope = Scope {
        app,
        resource: &resource,
        namespace: NAMESPACE,
        options: &options,
        default_manager: "kube-apiserver",
        ownership: Ownership::Writer,
    };
    let change = &mut |current: &Value| {
        let mut new = current.clone();
        meta_mut(&mut new).remove("resourceVersion");
        for path in [&["spec", "ports"][..], &["subsets"], &["endpoints"], &["ports"]] {
            if let Some(value) = wanted.pointer(&format!("/{}", path.join("/"))) {
                set_at(&mut new, path, Some(value.clone()));
            }
        }
        Ok(new)
    };
    match scope.modify(NAME, Part::Main, change).await {
        Err(error) if error.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Puts the objects right every few seconds until the server ends.
pub(crate) async fn keep(app: Arc<App>) {
    loop {
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        if let Err(error) = put_right(&app).await {
            tracing::debug!(%error, "the service of the API server stays as it is for now");
        }
    }
}
