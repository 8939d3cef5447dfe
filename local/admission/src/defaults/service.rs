//! Services, endpoints and network rules.

use serde_json::{Value, json};

use crate::json::{Fields, is_zero, missing, object, objects, zero};

/// A service; addresses come later, see [`crate::prepare::assign_cluster_ip`].
pub(super) fn service(service: &mut Fields) {
    if let Some(spec) = object(service, "spec") {
        zero(spec, "sessionAffinity", "None");
        if spec["sessionAffinity"] == "ClientIP" {
            if let Some(client) =
                object(spec, "sessionAffinityConfig").and_then(|config| object(config, "clientIP"))
            {
                missing(client, "timeoutSeconds", 10_800);
            }
        } else {
            spec.remove("sessionAffinityConfig");
        }
        zero(spec, "type", "ClusterIP");
        for port in objects(spec, "ports") {
            zero(port, "protocol", "TCP");
            if let Some(number) = port.get("port").cloned() {
                zero(port, "targetPort", number);
            }
        }
        let kind = spec["type"].as_str().unwrap_or_default().to_owned();
        let external = kind == "NodePort" || kind == "LoadBalancer";
        if external {
            zero(spec, "externalTrafficPolicy", "Cluster");
        }
        if external || kind == "ClusterIP" {
            missing(spec, "internalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            missing(spec, "allocateLoadBalancerNodePorts", true);
        }
    }
    load_balancer_status(service);
}

fn load_balancer_status(holder: &mut Fields) {
    if let Some(status) = object(holder, "status") {
        object(status, "loadBalancer");
    }
}

pub(super) fn endpoints(endpoints: &mut Fields) {
    for subset in objects(endpoints, "subsets") {
        for port in objects(subset, "ports") {
            zero(port, "protocol", "TCP");
        }
    }
}

pub(super) fn endpoint_slice(slice: &mut Fields) {
    slice.entry("endpoints").or_insert(Value::Null);
    slice.entry("ports").or_insert(Value::Null);
    for endpoint in objects(slice, "endpoints") {
        object(endpoint, "conditions");
    }
    for port in objects(slice, "ports") {
        missing(port, "name", "");
        missing(port, "protocol", "TCP");
    }
}

pub(super) fn network_policy(policy: &mut Fields) {
    let Some(spec) = object(policy, "spec") else { return };
    for direction in ["ingress", "egress"] {
        for rule in objects(spec, direction) {
            for port in objects(rule, "ports") {
                missing(port, "protocol", "TCP");
            }
        }
    }
    object(spec, "podSelector");
    let egress = spec.get("egress").is_some_and(|rules| !is_zero(rules));
    zero(spec, "policyTypes", if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
}

pub(super) fn ingress(ingress: &mut Fields) {
    object(ingress, "spec");
    load_balancer_status(ingress);
}
