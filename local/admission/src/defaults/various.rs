//! Namespaces, nodes, events, quotas, access rules and the like.

use serde_json::{Value, json};

use super::pod::resource_list;
use crate::json::{Fields, missing, object, object_if, objects, zero};

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn namespace(namespace: &mut Fields) {
    if let Some(name) = namespace.get("metadata").and_then(|metadata| metadata.get("name")).cloned()
        && name.as_str().is_some_and(|name| !name.is_empty())
        && let Some(labels) = object(namespace, "metadata").and_then(|metadata| object(metadata, "labels"))
    {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name);
    }
    object(namespace, "spec");
    if let Some(status) = object(namespace, "status") {
        zero(status, "phase", "Active");
    }
}

pub(super) fn node(node: &mut Fields) {
    object(node, "spec");
    let Some(status) = object(node, "status") else { return };
    for key in ["capacity", "allocatable"] {
        if let Some(list) = object_if(status, key) {
            resource_list(list);
        }
    }
    if let Some(capacity) = status.get("capacity").filter(|capacity| capacity.is_object()).cloned() {
        missing(status, "allocatable", capacity);
    }
    if let Some(endpoint) = object(status, "daemonEndpoints").and_then(|all| object(all, "kubeletEndpoint")) {
        missing(endpoint, "Port", 0);
    }
    if let Some(info) = object(status, "nodeInfo") {
        for key in [
            "machineID",
            "systemUUID",
            "bootID",
            "kernelVersion",
            "osImage",
            "containerRuntimeVersion",
            "kubeletVersion",
            "kubeProxyVersion",
            "operatingSystem",
            "architecture",
        ] {
            missing(info, key, "");
        }
    }
}

pub(super) fn event(event: &mut Fields) {
    object(event, "involvedObject");
    object(event, "source");
    for key in ["firstTimestamp", "lastTimestamp", "eventTime"] {
        event.entry(key).or_insert(Value::Null);
    }
    for key in ["reportingComponent", "reportingInstance"] {
        missing(event, key, "");
    }
}

/// The `events.k8s.io` form of an event.
pub(super) fn event_v1(event: &mut Fields) {
    object(event, "regarding");
    object(event, "deprecatedSource");
    for key in ["deprecatedFirstTimestamp", "deprecatedLastTimestamp", "eventTime"] {
        event.entry(key).or_insert(Value::Null);
    }
}

pub(super) fn resource_quota(quota: &mut Fields) {
    for key in ["spec", "status"] {
        if let Some(part) = object(quota, key) {
            for key in ["hard", "used"] {
                if let Some(list) = object_if(part, key) {
                    resource_list(list);
                }
            }
        }
    }
}

/// Limits of a container: defaults follow the maximum, default requests follow defaults, then the minimum.
pub(super) fn limit_range(range: &mut Fields) {
    let Some(spec) = object(range, "spec") else { return };
    for item in objects(spec, "limits") {
        for key in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            if let Some(list) = object_if(item, key) {
                resource_list(list);
            }
        }
        if item.get("type") == Some(&json!("Container")) {
            for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
                let Some(source) = item.get(from).and_then(Value::as_object).cloned() else { continue };
                if let Some(target) = object(item, to) {
                    for (name, value) in source {
                        target.entry(name).or_insert(value);
                    }
                }
            }
        }
    }
}

pub(super) fn lease(lease: &mut Fields) {
    object(lease, "spec");
}

pub(super) fn priority_class(class: &mut Fields) {
    missing(class, "preemptionPolicy", "PreemptLowerPriority");
    missing(class, "value", 0);
}

pub(super) fn role(role: &mut Fields) {
    role.entry("rules").or_insert(Value::Null);
}

/// Role bindings of a namespace or of the cluster.
pub(super) fn role_binding(binding: &mut Fields) {
    if let Some(role) = object(binding, "roleRef") {
        zero(role, "apiGroup", RBAC_GROUP);
    }
    for subject in objects(binding, "subjects") {
        if matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
            zero(subject, "apiGroup", RBAC_GROUP);
        }
    }
}

pub(super) fn scale(scale: &mut Fields) {
    object(scale, "spec");
    if let Some(status) = object(scale, "status") {
        missing(status, "replicas", 0);
    }
}
