//! Which slices a service should have. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use crate::owners::controller_reference;
use crate::pods;

/// Label with the service's name.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label with the name of the slice's manager.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The manager.
pub(crate) const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Most endpoints in a slice.
const SLICE_SIZE: usize = 100;

/// What to change.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Slices to create, without a name of their own.
    pub create: Vec<EndpointSlice>,
    /// Slices to replace.
    pub update: Vec<EndpointSlice>,
    /// Names of slices to delete.
    pub delete: Vec<String>,
}

/// Whether the controller keeps slices for the service.
pub(crate) fn is_served(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    service.metadata.deletion_timestamp.is_none()
        && spec.type_.as_deref() != Some("ExternalName")
        && spec.selector.as_ref().is_some_and(|selector| !selector.is_empty())
}

/// Whether the service's selector finds a pod with these labels.
pub(crate) fn selects(service: &Service, labels: &BTreeMap<String, String>) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    })
}

/// Compares the slices that a service has with those it should have, given the pods that it selects.
pub(crate) fn plan<'a>(
    service: &Service,
    selected: impl IntoIterator<Item = &'a Pod>,
    existing: &[impl AsRef<EndpointSlice>],
) -> Plan {
    let mut groups = wanted(service, selected);
    if groups.is_empty() {
        // As Kubernetes does: a service without pods has one slice that says so.
        groups.push((families(service)[0], Vec::new(), Vec::new()));
    }
    let mut plan = Plan::default();
    let mut free: Vec<&EndpointSlice> = existing.iter().map(AsRef::as_ref).collect();
    for (family, ports, endpoints) in groups {
        let same = |slice: &&EndpointSlice| slice.address_type == family && slice_ports(slice) == ports;
        let (mut fitting, other): (Vec<_>, Vec<_>) = free.into_iter().partition(|slice| same(slice));
        free = other;
        let mut chunks: Vec<&[Endpoint]> = endpoints.chunks(SLICE_SIZE).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        for chunk in chunks {
            let spare = (!fitting.is_empty()).then(|| fitting.remove(0)).or_else(|| take(&mut free, family));
            place(service, spare, family, &ports, chunk, &mut plan);
        }
        free.extend(fitting);
    }
    plan.delete = free.iter().map(|slice| slice.name_any()).collect();
    plan
}

/// A slice whose ports do not fit can be given others; its address type stays.
fn take<'a>(free: &mut Vec<&'a EndpointSlice>, family: &str) -> Option<&'a EndpointSlice> {
    let position = free.iter().position(|slice| slice.address_type == family)?;
    Some(free.remove(position))
}

fn place(
    service: &Service,
    spare: Option<&EndpointSlice>,
    family: &str,
    ports: &[EndpointPort],
    endpoints: &[Endpoint],
    plan: &mut Plan,
) {
    let labels = labels(service);
    let owners = vec![controller_reference(service)];
    let Some(old) = spare else {
        plan.create.push(EndpointSlice {
            address_type: family.to_owned(),
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", service.name_any())),
                namespace: service.namespace(),
                labels: Some(labels),
                owner_references: Some(owners),
                ..ObjectMeta::default()
            },
            ports: Some(ports.to_vec()),
            endpoints: Some(endpoints.to_vec()),
        });
        return;
    };
    let same = old.metadata.labels.as_ref() == Some(&labels)
        && slice_ports(old) == ports
        && old.endpoints.as_deref().unwrap_or_default() == endpoints;
    if !same {
        let mut new = old.clone();
        new.metadata.labels = Some(labels);
        new.metadata.owner_references = Some(owners);
        new.ports = Some(ports.to_vec());
        new.endpoints = Some(endpoints.to_vec());
        plan.update.push(new);
    }
}

fn slice_ports(slice: &EndpointSlice) -> &[EndpointPort] {
    slice.ports.as_deref().unwrap_or_default()
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    let reserved = [SERVICE_NAME, MANAGED_BY, HEADLESS];
    labels.retain(|key, _| !reserved.contains(&key.as_str()));
    labels.insert(SERVICE_NAME.into(), service.name_any());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

fn families(service: &Service) -> Vec<&'static str> {
    let given = service.spec.as_ref().and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
    let mut families: Vec<_> =
        given.iter().map(|family| if family == "IPv6" { "IPv6" } else { "IPv4" }).collect();
    if families.is_empty() {
        families.push("IPv4");
    }
    families
}

type Group = (&'static str, Vec<EndpointPort>, Vec<Endpoint>);

/// Endpoints by address type and by the ports that they resolve the service's ports to.
fn wanted<'a>(service: &Service, selected: impl IntoIterator<Item = &'a Pod>) -> Vec<Group> {
    let families = families(service);
    let mut groups: Vec<Group> = Vec::new();
    let mut pods: Vec<&Pod> = selected.into_iter().filter(|pod| !pods::is_finished(pod)).collect();
    pods.sort_by(|left, right| left.metadata.name.cmp(&right.metadata.name));
    for pod in pods {
        let ports = resolved_ports(service, pod);
        for family in &families {
            let Some(address) = address(pod, family) else { continue };
            let endpoint = endpoint(service, pod, address);
            let found = groups.iter_mut().find(|(own, own_ports, _)| own == family && *own_ports == ports);
            match found {
                Some((_, _, endpoints)) => endpoints.push(endpoint),
                None => groups.push((family, ports.clone(), vec![endpoint])),
            }
        }
    }
    groups
}

fn address(pod: &Pod, family: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let of_family = |address: &&String| address.contains(':') == (family == "IPv6");
    let listed = status.pod_ips.iter().flatten().map(|address| &address.ip).find(of_family);
    listed.or_else(|| status.pod_ip.as_ref().filter(of_family)).filter(|address| !address.is_empty()).cloned()
}

fn resolved_ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let resolved = ports.iter().filter_map(|port| {
        Some(EndpointPort {
            app_protocol: port.app_protocol.clone(),
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(resolve(port, pod)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        })
    });
    resolved.collect()
}

fn resolve(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|container| container.restart_policy.as_deref() == Some("Always"));
            let ports =
                spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
            let fits = |own: &&k8s_openapi::api::core::v1::ContainerPort| {
                own.name.as_ref() == Some(name) && own.protocol.as_deref().unwrap_or("TCP") == protocol
            };
            ports.into_iter().find(fits).map(|own| own.container_port)
        }
    }
}

fn endpoint(service: &Service, pod: &Pod, address: String) -> Endpoint {
    let publish = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
    let serving = pods::is_ready(pod);
    let terminating = pods::is_terminating(pod);
    let spec = pod.spec.as_ref();
    let own_domain = spec.and_then(|spec| spec.subdomain.clone()) == Some(service.name_any());
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publish || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: spec.filter(|_| own_domain).and_then(|spec| spec.hostname.clone()),
        node_name: spec.and_then(|spec| spec.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.namespace(),
            name: Some(pod.name_any()),
            uid: pod.uid(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    struct Slice(EndpointSlice);

    impl AsRef<EndpointSlice> for Slice {
        fn as_ref(&self) -> &EndpointSlice {
            &self.0
        }
    }

    fn service(spec: Value) -> Service {
        let value = json!({ "metadata": { "name": "s", "namespace": "n", "uid": "u" }, "spec": spec });
        serde_json::from_value(value).unwrap()
    }

    fn pod(name: &str, ready: &str, extra: Value) -> Pod {
        let mut spec = json!({
            "nodeName": "node-0", "hostname": name, "subdomain": "s",
            "containers": [{ "name": "c", "ports": [{ "name": "http", "containerPort": 8080 }] }],
        });
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "n", "uid": name },
            "spec": spec,
            "status": {
                "phase": "Running", "podIP": "10.0.0.1", "conditions": [{ "type": "Ready", "status": ready }],
            },
        }))
        .unwrap()
    }

    fn none() -> [Slice; 0] {
        []
    }

    #[test]
    fn a_headless_service_names_its_pods_hosts_and_resolves_ports_by_name() {
        let service = service(json!({
            "clusterIP": "None", "selector": { "a": "b" }, "ports": [{ "port": 80, "targetPort": "http" }],
        }));
        let plan = plan(&service, [&pod("p-0", "True", json!({})), &pod("p-1", "False", json!({}))], &none());
        let slice = &plan.create[0];
        assert_eq!(slice.metadata.labels.as_ref().unwrap()[HEADLESS], "");
        assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(8080));
        let endpoints = slice.endpoints.as_ref().unwrap();
        assert_eq!(endpoints[0].hostname.as_deref(), Some("p-0"));
        assert_eq!(endpoints[0].conditions.as_ref().unwrap().ready, Some(true));
        assert_eq!(endpoints[1].conditions.as_ref().unwrap().ready, Some(false));
    }

    #[test]
    fn unready_addresses_are_published_where_the_service_says_so() {
        let service = service(json!({
            "selector": { "a": "b" }, "publishNotReadyAddresses": true, "ports": [{ "port": 80 }],
        }));
        let plan = plan(&service, [&pod("p-0", "False", json!({}))], &none());
        let conditions = plan.create[0].endpoints.as_ref().unwrap()[0].conditions.clone().unwrap();
        assert_eq!((conditions.ready, conditions.serving), (Some(true), Some(false)));
    }

    #[test]
    fn a_second_look_changes_nothing_and_a_change_updates_the_slice() {
        let service = service(json!({ "selector": { "a": "b" }, "ports": [{ "port": 80 }] }));
        let ready = pod("p-0", "True", json!({}));
        let mut slice = plan(&service, [&ready], &none()).create.remove(0);
        slice.metadata.name = Some("s-abcde".into());
        let existing = [Slice(slice)];
        assert_eq!(plan(&service, [&ready], &existing), Plan::default());
        let changed = plan(&service, [&pod("p-0", "False", json!({}))], &existing);
        assert_eq!((changed.create.len(), changed.update.len(), changed.delete.len()), (0, 1, 0));
        let empty = plan(&service, [], &existing);
        assert_eq!((empty.create.len(), empty.update.len(), empty.delete.len()), (0, 1, 0));
    }

    #[test]
    fn many_endpoints_take_several_slices() {
        let service = service(json!({ "selector": { "a": "b" }, "ports": [{ "port": 80 }] }));
        let pods: Vec<Pod> = (0..250).map(|index| pod(&format!("p-{index}"), "True", json!({}))).collect();
        let plan = plan(&service, &pods, &none());
        let sizes: Vec<usize> =
            plan.create.iter().map(|slice| slice.endpoints.as_ref().unwrap().len()).collect();
        assert_eq!(sizes, [100, 100, 50]);
    }
}
