//! Pods and pod templates: spec, containers, probes, volumes.

use serde_json::{Value, json};

use crate::json::{Fields, is_zero, missing, object, object_if, objects, zero};
use crate::quantity::Quantity;

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// A pod: besides its spec's defaults, requests follow limits and service links are on.
pub(super) fn pod(pod: &mut Fields) {
    let Some(spec) = object(pod, "spec") else { return };
    pod_spec(spec);
    missing(spec, "enableServiceLinks", true);
    for list in ["initContainers", "containers"] {
        for container in objects(spec, list) {
            if let Some(resources) = object_if(container, "resources") {
                requests_from_limits(resources);
            }
        }
    }
    if let Some(resources) = object_if(spec, "resources") {
        requests_from_limits(resources);
    }
    object(pod, "status");
}

fn requests_from_limits(resources: &mut Fields) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    if limits.is_empty() {
        return;
    }
    if let Some(requests) = object(resources, "requests") {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

/// A `PodTemplate` object.
pub(super) fn pod_template_holder(holder: &mut Fields) {
    template(holder, "template");
}

/// A pod template in a field of a workload's spec.
pub(super) fn template(holder: &mut Fields, key: &str) {
    let Some(template) = object(holder, key) else { return };
    object(template, "metadata");
    if let Some(spec) = object(template, "spec") {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Fields) {
    zero(spec, "restartPolicy", "Always");
    missing(spec, "terminationGracePeriodSeconds", 30);
    zero(spec, "dnsPolicy", "ClusterFirst");
    object(spec, "securityContext");
    zero(spec, "schedulerName", "default-scheduler");
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    if let Some(account) = spec.get("serviceAccountName").filter(|name| !is_zero(name)).cloned() {
        zero(spec, "serviceAccount", account);
    } else if let Some(account) = spec.get("serviceAccount").filter(|name| !is_zero(name)).cloned() {
        zero(spec, "serviceAccountName", account);
    }
    for list in CONTAINER_LISTS {
        for container in objects(spec, list) {
            self::container(container, host_network && list != "ephemeralContainers");
        }
    }
    objects(spec, "volumes").for_each(volume);
    if let Some(overhead) = object_if(spec, "overhead") {
        resource_list(overhead);
    }
    if let Some(resources) = object_if(spec, "resources") {
        requirements(resources);
    }
}

fn container(container: &mut Fields, host_network: bool) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let pull_policy = pull_policy(image);
    zero(container, "imagePullPolicy", pull_policy);
    zero(container, "terminationMessagePath", "/dev/termination-log");
    zero(container, "terminationMessagePolicy", "File");
    if let Some(resources) = object(container, "resources") {
        requirements(resources);
    }
    for port in objects(container, "ports") {
        zero(port, "protocol", "TCP");
        if host_network && let Some(number) = port.get("containerPort").cloned() {
            zero(port, "hostPort", number);
        }
    }
    for variable in objects(container, "env") {
        if let Some(source) = object_if(variable, "valueFrom") {
            field_reference(source);
            if let Some(file) = object_if(source, "fileKeyRef") {
                missing(file, "optional", false);
            }
            if let Some(resource) = object_if(source, "resourceFieldRef") {
                divisor(resource);
            }
        }
    }
    for (key, success_threshold) in [("livenessProbe", 1), ("readinessProbe", 1), ("startupProbe", 1)] {
        if let Some(probe) = object_if(container, key) {
            zero(probe, "timeoutSeconds", 1);
            zero(probe, "periodSeconds", 10);
            zero(probe, "successThreshold", success_threshold);
            zero(probe, "failureThreshold", 3);
            http_get(probe);
            if let Some(grpc) = object_if(probe, "grpc") {
                missing(grpc, "service", "");
            }
        }
    }
    if let Some(lifecycle) = object_if(container, "lifecycle") {
        for key in ["postStart", "preStop"] {
            if let Some(handler) = object_if(lifecycle, key) {
                http_get(handler);
            }
        }
    }
}

/// Images without a tag, or tagged `latest`, are pulled always; anything pinned only when absent.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit_once('/').map_or(image, |(_, name)| name);
    let pinned = name.contains('@') || name.split_once(':').is_some_and(|(_, tag)| tag != "latest");
    if pinned { "IfNotPresent" } else { "Always" }
}

fn http_get(handler: &mut Fields) {
    if let Some(get) = object_if(handler, "httpGet") {
        zero(get, "path", "/");
        zero(get, "scheme", "HTTP");
    }
}

fn field_reference(holder: &mut Fields) {
    if let Some(reference) = object_if(holder, "fieldRef") {
        zero(reference, "apiVersion", "v1");
    }
}

fn divisor(resource: &mut Fields) {
    missing(resource, "divisor", "0");
    canonical(resource, "divisor");
}

/// Writes the quantities of `limits` and `requests` in their canonical form.
pub(super) fn requirements(resources: &mut Fields) {
    for key in ["limits", "requests"] {
        if let Some(list) = object_if(resources, key) {
            resource_list(list);
        }
    }
}

/// Writes every quantity of a resource list in its canonical form, rounded up to thousandths.
pub(super) fn resource_list(list: &mut Fields) {
    for value in list.values_mut() {
        if let Some(quantity) = Quantity::from_json(value) {
            *value = quantity.round_up_to_milli().to_string().into();
        }
    }
}

/// Writes the quantity of one field in its canonical form.
pub(super) fn canonical(fields: &mut Fields, key: &str) {
    if let Some(value) = fields.get_mut(key)
        && let Some(quantity) = Quantity::from_json(value)
    {
        *value = quantity.to_string().into();
    }
}

fn volume(volume: &mut Fields) {
    if !volume.iter().any(|(key, value)| key != "name" && !value.is_null()) {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    if let Some(source) = object_if(volume, "emptyDir") {
        canonical(source, "sizeLimit");
    }
    for key in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = object_if(volume, key) {
            missing(source, "defaultMode", 0o644);
            downward_items(source);
            for projection in objects(source, "sources") {
                if let Some(token) = object_if(projection, "serviceAccountToken") {
                    missing(token, "expirationSeconds", 3600);
                }
                if let Some(downward) = object_if(projection, "downwardAPI") {
                    downward_items(downward);
                }
            }
        }
    }
    if let Some(path) = object_if(volume, "hostPath") {
        missing(path, "type", "");
    }
    if let Some(image) = object_if(volume, "image") {
        let policy = pull_policy(image.get("reference").and_then(Value::as_str).unwrap_or_default());
        zero(image, "pullPolicy", policy);
    }
    if let Some(claim) =
        object_if(volume, "ephemeral").and_then(|source| object_if(source, "volumeClaimTemplate"))
    {
        object(claim, "metadata");
        if let Some(spec) = object(claim, "spec") {
            super::storage::claim_spec(spec);
        }
    }
}

fn downward_items(source: &mut Fields) {
    for item in objects(source, "items") {
        field_reference(item);
        if let Some(resource) = object_if(item, "resourceFieldRef") {
            divisor(resource);
        }
    }
}
