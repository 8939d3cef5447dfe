//! Services, their endpoints, and network rules.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{AGE, Column, NAME, Printed, age, labels, name, or_none, selector, text_column, wide_column};
use crate::json::{at, integer, list, text};

pub(super) const KINDS: &[Printed] = &[
    Printed {
        group: "",
        kind: "Service",
        columns: &[
            NAME,
            text_column("Type", "How the service is exposed."),
            text_column("Cluster-IP", "The service's address within the cluster."),
            text_column("External-IP", "Addresses outside the cluster."),
            text_column("Port(s)", "The service's ports."),
            AGE,
            wide_column("Selector", "The labels of the pods that serve."),
        ],
        row: service,
    },
    Printed {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        columns: &[
            NAME,
            text_column("AddressType", "The kind of addresses."),
            text_column("Ports", "The ports of every endpoint."),
            text_column("Endpoints", "The addresses of endpoints."),
            AGE,
        ],
        row: endpoint_slice,
    },
    Printed {
        group: "networking.k8s.io",
        kind: "NetworkPolicy",
        columns: &[NAME, text_column("Pod-Selector", "The labels of pods that the policy concerns."), AGE],
        row: network_policy,
    },
    Printed { group: "networking.k8s.io", kind: "Ingress", columns: INGRESS, row: ingress },
];

const INGRESS: &[Column] = &[
    NAME,
    text_column("Class", "The class that serves the ingress."),
    text_column("Hosts", "Host names routed."),
    text_column("Address", "Addresses of the load balancer."),
    text_column("Ports", "The ports served."),
    AGE,
];

fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = at(object, &["spec"]);
    let address = match list(spec, "clusterIPs").first().and_then(Value::as_str) {
        Some(first) => first,
        None => text(spec, "clusterIP"),
    };
    let ports: Vec<String> = list(spec, "ports").iter().map(service_port).collect();
    vec![
        name(object),
        json!(text(spec, "type")),
        json!(or_none(address)),
        json!(external_address(object)),
        json!(or_none(&ports.join(","))),
        age(object, now),
        labels(at(spec, &["selector"])),
    ]
}

fn service_port(port: &Value) -> String {
    let (number, protocol) = (integer(port, "port").unwrap_or_default(), text(port, "protocol"));
    match integer(port, "nodePort") {
        Some(node_port) if node_port != 0 => format!("{number}:{node_port}/{protocol}"),
        _ => format!("{number}/{protocol}"),
    }
}

fn external_address(object: &Value) -> String {
    let spec = at(object, &["spec"]);
    let external: Vec<&str> = list(spec, "externalIPs").iter().filter_map(Value::as_str).collect();
    match text(spec, "type") {
        "ExternalName" => text(spec, "externalName").to_owned(),
        "LoadBalancer" => {
            let balanced = load_balancers(object);
            let all: Vec<&str> = balanced.into_iter().chain(external).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        _ => or_none(&external.join(",")).to_owned(),
    }
}

fn load_balancers(object: &Value) -> Vec<&str> {
    list(at(object, &["status", "loadBalancer"]), "ingress")
        .iter()
        .map(|ingress| match text(ingress, "ip") {
            "" => text(ingress, "hostname"),
            address => address,
        })
        .collect()
}

/// Three items and the count of further ones.
fn three(items: &[String]) -> String {
    match items {
        [] => "<unset>".to_owned(),
        items if items.len() <= 3 => items.join(","),
        items => format!("{} + {} more...", items[..3].join(","), items.len() - 3),
    }
}

fn endpoint_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = list(object, "ports")
        .iter()
        .map(|port| match (integer(port, "port"), text(port, "name")) {
            (Some(number), _) => number.to_string(),
            (None, "") => "*".to_owned(),
            (None, name) => name.to_owned(),
        })
        .collect();
    let addresses: Vec<String> = list(object, "endpoints")
        .iter()
        .flat_map(|endpoint| list(endpoint, "addresses"))
        .filter_map(|address| address.as_str().map(ToOwned::to_owned))
        .collect();
    vec![
        name(object),
        json!(text(object, "addressType")),
        json!(three(&ports)),
        json!(three(&addresses)),
        age(object, now),
    ]
}

fn network_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), selector(at(object, &["spec", "podSelector"])), age(object, now)]
}

fn ingress(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = at(object, &["spec"]);
    let hosts: Vec<String> = list(spec, "rules")
        .iter()
        .map(|rule| text(rule, "host").to_owned())
        .filter(|host| !host.is_empty())
        .collect();
    let hosts = if hosts.is_empty() { "*".to_owned() } else { three(&hosts) };
    let ports = if list(spec, "tls").is_empty() { "80" } else { "80, 443" };
    vec![
        name(object),
        json!(or_none(text(spec, "ingressClassName"))),
        json!(hosts),
        json!(load_balancers(object).join(",")),
        json!(ports),
        age(object, now),
    ]
}
