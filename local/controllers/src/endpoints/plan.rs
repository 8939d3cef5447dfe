//! What the `Endpoints` object of a service says, given the service's slices. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Service,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

/// Label with the name of the object's manager.
pub(crate) const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// The manager.
pub(crate) const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// The object names no more addresses.
const MOST_ADDRESSES: usize = 1000;

/// The object that the service should have.
pub(crate) fn wanted<'a>(
    service: &Service,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> Endpoints {
    let mut subsets: Vec<EndpointSubset> = Vec::new();
    let mut room = MOST_ADDRESSES;
    let mut truncated = false;
    for slice in slices.into_iter().filter(|slice| slice.address_type == "IPv4") {
        let ports = ports(slice);
        let endpoints = slice.endpoints.as_deref().unwrap_or_default();
        truncated |= endpoints.len() > room;
        for endpoint in endpoints.iter().take(room) {
            let position = subsets.iter().position(|subset| subset.ports == ports);
            let position = position.unwrap_or_else(|| {
                subsets.push(EndpointSubset { ports: ports.clone(), ..EndpointSubset::default() });
                subsets.len() - 1
            });
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false);
            let subset = &mut subsets[position];
            let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
            list.get_or_insert_default().extend(address(endpoint));
        }
        room -= endpoints.len().min(room);
    }
    for subset in &mut subsets {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses].into_iter().flatten() {
            list.sort_by(|left, right| left.ip.cmp(&right.ip));
        }
    }
    let mut labels: BTreeMap<String, String> = service.labels().clone();
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.into(), String::new());
    }
    Endpoints {
        metadata: ObjectMeta {
            name: Some(service.name_any()),
            namespace: service.namespace(),
            labels: Some(labels),
            annotations: truncated.then(|| [(OVER_CAPACITY.to_owned(), "truncated".to_owned())].into()),
            ..ObjectMeta::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

/// Whether the object says what is wanted.
pub(crate) fn is_current(existing: &Endpoints, wanted: &Endpoints) -> bool {
    existing.metadata.labels == wanted.metadata.labels
        && existing.annotations().get(OVER_CAPACITY) == wanted.annotations().get(OVER_CAPACITY)
        && existing.subsets.as_deref().unwrap_or_default() == wanted.subsets.as_deref().unwrap_or_default()
}

fn ports(slice: &EndpointSlice) -> Option<Vec<EndpointPort>> {
    let ports = slice.ports.iter().flatten().filter_map(|port| {
        Some(EndpointPort {
            app_protocol: port.app_protocol.clone(),
            name: port.name.clone().filter(|name| !name.is_empty()),
            port: port.port?,
            protocol: port.protocol.clone(),
        })
    });
    let ports: Vec<_> = ports.collect();
    (!ports.is_empty()).then_some(ports)
}

fn address(endpoint: &Endpoint) -> Option<EndpointAddress> {
    let target = endpoint.target_ref.as_ref().map(|target| ObjectReference {
        kind: target.kind.clone(),
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        uid: target.uid.clone(),
        ..ObjectReference::default()
    });
    Some(EndpointAddress {
        ip: endpoint.addresses.first()?.clone(),
        hostname: endpoint.hostname.clone(),
        node_name: endpoint.node_name.clone(),
        target_ref: target,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service() -> Service {
        let value = json!({ "metadata": { "name": "s", "namespace": "n", "labels": { "a": "b" } },
                            "spec": { "clusterIP": "None" } });
        serde_json::from_value(value).unwrap()
    }

    fn slice(port: i32, endpoints: Value) -> EndpointSlice {
        let ports = json!([{ "name": "", "port": port, "protocol": "TCP" }]);
        let value = json!({ "addressType": "IPv4", "metadata": {}, "ports": ports, "endpoints": endpoints });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn addresses_are_grouped_by_ports_and_readiness() {
        let slices = [
            slice(
                80,
                json!([{ "addresses": ["10.0.0.2"], "hostname": "p", "conditions": { "ready": true } },
                             { "addresses": ["10.0.0.3"], "conditions": { "ready": false } }]),
            ),
            slice(80, json!([{ "addresses": ["10.0.0.1"] }])),
            slice(81, json!([{ "addresses": ["10.0.0.4"] }])),
        ];
        let made = wanted(&service(), &slices);
        assert_eq!(made.labels()[HEADLESS], "");
        assert_eq!(
            json!(made.subsets),
            json!([
                { "addresses": [{ "ip": "10.0.0.1" }, { "ip": "10.0.0.2", "hostname": "p" }],
                  "notReadyAddresses": [{ "ip": "10.0.0.3" }], "ports": [{ "port": 80, "protocol": "TCP" }] },
                { "addresses": [{ "ip": "10.0.0.4" }], "ports": [{ "port": 81, "protocol": "TCP" }] },
            ])
        );
        assert!(is_current(&made, &made));
        assert!(!is_current(&wanted(&service(), []), &made));
    }

    #[test]
    fn too_many_addresses_are_cut() {
        let many: Value = (0..1200)
            .map(|index| json!({ "addresses": [format!("10.0.{}.{}", index / 250, index % 250)] }))
            .collect();
        let made = wanted(&service(), &[slice(80, many)]);
        assert_eq!(made.subsets.as_ref().unwrap()[0].addresses.as_ref().unwrap().len(), 1000);
        assert_eq!(made.annotations()[OVER_CAPACITY], "truncated");
    }
}
