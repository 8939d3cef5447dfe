//! What Kubernetes does to an object between decoding and validation: who may write which part, generations, and fields
//! that the server owns.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::json::{Fields, at, flag, has, is_zero, list, object, object_if, text};
use crate::{defaults, group, qos};

/// Kinds whose status is written through `/status` only.
const WITH_STATUS: [(&str, &str); 16] = [
    ("", "Pod"),
    ("", "Service"),
    ("", "Namespace"),
    ("", "Node"),
    ("", "PersistentVolume"),
    ("", "PersistentVolumeClaim"),
    ("", "ReplicationController"),
    ("", "ResourceQuota"),
    ("apps", "Deployment"),
    ("apps", "ReplicaSet"),
    ("apps", "StatefulSet"),
    ("apps", "DaemonSet"),
    ("batch", "Job"),
    ("batch", "CronJob"),
    ("autoscaling", "HorizontalPodAutoscaler"),
    ("policy", "PodDisruptionBudget"),
];

/// Kinds with `metadata.generation`: it grows when the spec changes.
const WITH_GENERATION: [(&str, &str); 11] = [
    ("", "Pod"),
    ("", "ReplicationController"),
    ("apps", "Deployment"),
    ("apps", "ReplicaSet"),
    ("apps", "StatefulSet"),
    ("apps", "DaemonSet"),
    ("batch", "Job"),
    ("batch", "CronJob"),
    ("policy", "PodDisruptionBudget"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("networking.k8s.io", "Ingress"),
];

/// How often the template of a daemon set has changed: an annotation now, a field of its spec once.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// Whether a kind's status is a part of its own, written only through its `/status` subresource.
pub fn has_status(api_version: &str, kind: &str) -> bool {
    WITH_STATUS.contains(&(group(api_version), kind))
}

/// Prepares an object that is about to be created. `metadata.name`, `uid` and `creationTimestamp` must be set
/// already.
pub fn create(api_version: &str, kind: &str, object: &mut Value) {
    let api_group = group(api_version);
    let Some(fields) = object.as_object_mut() else { return };
    // A node registers itself with its status; everything else starts from nothing.
    let reset = has_status(api_version, kind) && kind != "Node" && kind != "PersistentVolume";
    if reset {
        fields.insert("status".to_owned(), Value::Object(Map::new()));
    }
    if let Some(metadata) = self::object(fields, "metadata") {
        if WITH_GENERATION.contains(&(api_group, kind)) {
            metadata.insert("generation".to_owned(), json!(1));
        } else {
            metadata.remove("generation");
        }
    }
    match (api_group, kind) {
        ("", "Secret") => decode_string_data(fields),
        ("", "Service") => service_addresses(fields),
        ("", "Namespace") => {
            if let Some(spec) = self::object(fields, "spec") {
                let finalizers = spec.entry("finalizers").or_insert_with(|| json!([]));
                if let Some(finalizers) = finalizers.as_array_mut()
                    && !finalizers.contains(&json!("kubernetes"))
                {
                    finalizers.push(json!("kubernetes"));
                }
            }
        }
        ("batch", "Job") => job_selector(fields),
        ("apps", "DaemonSet") => {
            if let Some(notes) =
                self::object(fields, "metadata").and_then(|meta| self::object(meta, "annotations"))
            {
                notes.insert(TEMPLATE_GENERATION.to_owned(), json!("1"));
            }
        }
        _ => {}
    }
    if reset {
        defaults::apply(api_version, kind, object);
    }
    if (api_group, kind) == ("", "Pod") {
        let class = qos::class(object);
        object["status"]["phase"] = json!("Pending");
        object["status"]["qosClass"] = json!(class);
        if !list(at(object, &["spec"]), "schedulingGates").is_empty() {
            // The moment is that of the creation: the caller has filled it in already.
            let moment = at(object, &["metadata", "creationTimestamp"]).clone();
            object["status"]["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "lastProbeTime": null,
                "lastTransitionTime": moment,
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]);
        }
    }
}

/// Prepares the replacement of `old`: a write to the object itself keeps the status, a write to `/status` keeps
/// everything else, and the generation grows when the spec changed.
pub fn update(api_version: &str, kind: &str, old: &Value, new: &mut Value, subresource: Option<&str>) {
    let api_group = group(api_version);
    if !new.is_object() || !old.is_object() {
        return;
    }
    match subresource {
        Some("status") => keep_all_but_status(old, new),
        Some("ephemeralcontainers" | "resize") | None => {
            if has_status(api_version, kind) {
                copy(old, new, "status");
            }
        }
        Some(_) => {}
    }
    if let Some(fields) = new.as_object_mut() {
        match (api_group, kind) {
            ("", "Secret") => decode_string_data(fields),
            ("", "Service") if subresource.is_none() => keep_service_addresses(old, fields),
            ("", "Namespace") if subresource.is_none() => keep_namespace_finalizers(old, fields),
            ("batch", "Job") => job_status_keeps_selector(old, fields),
            ("apps", "DaemonSet") if subresource.is_none() => template_generation(old, fields),
            _ => {}
        }
    }
    generation(api_group, kind, old, new);
}

fn generation(api_group: &str, kind: &str, old: &Value, new: &mut Value) {
    let previous = at(old, &["metadata", "generation"]).as_i64();
    let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let Some(previous) = previous else {
        metadata.remove("generation");
        return;
    };
    metadata.insert("generation".to_owned(), json!(previous));
    if WITH_GENERATION.contains(&(api_group, kind)) && old.get("spec") != new.get("spec") {
        new["metadata"]["generation"] = json!(previous + 1);
    }
}

/// A status write may also touch labels, annotations, finalizers and owners, but never the spec or data.
fn keep_all_but_status(old: &Value, new: &mut Value) {
    let status = new.get("status").cloned();
    let metadata = new.get("metadata").cloned();
    *new = old.clone();
    for (key, value) in [("status", status), ("metadata", metadata)] {
        match (value, new.as_object_mut()) {
            (Some(value), Some(fields)) => {
                fields.insert(key.to_owned(), value);
            }
            (None, Some(fields)) => {
                fields.remove(key);
            }
            (_, None) => {}
        }
    }
}

fn copy(old: &Value, new: &mut Value, key: &str) {
    let Some(fields) = new.as_object_mut() else { return };
    match old.get(key) {
        Some(value) => {
            fields.insert(key.to_owned(), value.clone());
        }
        None => {
            fields.remove(key);
        }
    }
}

/// `stringData` is a write-only convenience: its texts go into `data`, encoded.
fn decode_string_data(secret: &mut Fields) {
    let Some(plain) = secret.remove("stringData") else { return };
    let Some(plain) = plain.as_object().filter(|plain| !plain.is_empty()) else { return };
    if let Some(data) = object(secret, "data") {
        for (key, value) in plain {
            data.insert(key.clone(), json!(STANDARD.encode(value.as_str().unwrap_or_default())));
        }
    }
}

/// Fields that a namespace's `/finalize` alone may change.
fn keep_namespace_finalizers(old: &Value, namespace: &mut Fields) {
    if let Some(spec) = object(namespace, "spec") {
        match at(old, &["spec", "finalizers"]) {
            Value::Null => spec.remove("finalizers"),
            finalizers => spec.insert("finalizers".to_owned(), finalizers.clone()),
        };
    }
}

/// Labels the template and selects by the job's own uid, unless the job brings its selector.
fn job_selector(job: &mut Fields) {
    let (uid, name) = match job.get("metadata") {
        Some(metadata) => (text(metadata, "uid").to_owned(), text(metadata, "name").to_owned()),
        None => return,
    };
    let Some(spec) = object(job, "spec") else { return };
    if spec.get("manualSelector") == Some(&Value::Bool(true)) {
        return;
    }
    let mut copied = Value::Null;
    if let Some(template) = object(spec, "template")
        && let Some(labels) = object(template, "metadata").and_then(|metadata| object(metadata, "labels"))
    {
        for (key, value) in [
            ("batch.kubernetes.io/controller-uid", &uid),
            ("batch.kubernetes.io/job-name", &name),
            ("controller-uid", &uid),
            ("job-name", &name),
        ] {
            labels.entry(key).or_insert_with(|| json!(value));
        }
        copied = Value::Object(labels.clone());
    }
    if let Some(selector) = object(spec, "selector").and_then(|selector| object(selector, "matchLabels")) {
        selector.entry("batch.kubernetes.io/controller-uid").or_insert_with(|| json!(uid));
    }
    // Jobs without labels of their own carry their template's.
    if let Some(metadata) = object_if(job, "metadata")
        && metadata.get("labels").is_none_or(is_zero)
    {
        metadata.insert("labels".to_owned(), copied);
    }
}

/// A replaced job may leave out what the server generated.
fn job_status_keeps_selector(old: &Value, job: &mut Fields) {
    let Some(spec) = object_if(job, "spec") else { return };
    if !spec.contains_key("selector") && has(&old["spec"], "selector") {
        spec.insert("selector".to_owned(), old["spec"]["selector"].clone());
    }
}

/// Counts the changes of a daemon set's template; nobody else may.
fn template_generation(old: &Value, set: &mut Fields) {
    let before = text(at(old, &["metadata", "annotations"]), TEMPLATE_GENERATION).parse().unwrap_or(0_i64);
    let changed = at(old, &["spec", "template"]) != at(&set["spec"], &["template"]);
    if let Some(notes) = object(set, "metadata").and_then(|metadata| object(metadata, "annotations")) {
        notes.insert(TEMPLATE_GENERATION.to_owned(), json!((before + i64::from(changed)).to_string()));
    }
}

/// Whether a service still needs an address in its cluster.
pub fn needs_cluster_ip(service: &Value) -> bool {
    let spec = at(service, &["spec"]);
    text(spec, "type") != "ExternalName" && text(spec, "clusterIP").is_empty()
}

/// Gives a service its address.
pub fn assign_cluster_ip(service: &mut Value, address: &str) {
    if let Some(spec) = service.as_object_mut().and_then(|service| object(service, "spec")) {
        spec.insert("clusterIP".to_owned(), json!(address));
        spec.insert("clusterIPs".to_owned(), json!([address]));
    }
}

/// The ports of a service that still need a port on every node, by index.
pub fn needs_node_ports(service: &Value) -> Vec<usize> {
    let spec = at(service, &["spec"]);
    let wanted = match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => flag(spec, "allocateLoadBalancerNodePorts"),
        _ => false,
    };
    let unset = |port: &&(usize, &Value)| port.1.get("nodePort").is_none_or(is_zero);
    list(spec, "ports")
        .iter()
        .enumerate()
        .filter(|port| wanted && unset(&port))
        .map(|(index, _)| index)
        .collect()
}

/// The address families of a cluster with IPv4 alone.
fn service_addresses(service: &mut Fields) {
    let Some(spec) = object(service, "spec") else { return };
    if spec.get("type") == Some(&json!("ExternalName")) {
        return;
    }
    if let Some(address) = spec.get("clusterIP").filter(|address| !is_zero(address)).cloned() {
        spec.entry("clusterIPs").or_insert_with(|| json!([address]));
    }
    let headless = spec.get("clusterIP") == Some(&json!("None"));
    let selects = spec.get("selector").is_some_and(|selector| !is_zero(selector));
    let (families, policy) = if headless && !selects {
        (json!(["IPv4", "IPv6"]), "RequireDualStack")
    } else {
        (json!(["IPv4"]), "SingleStack")
    };
    spec.entry("ipFamilyPolicy").or_insert_with(|| json!(policy));
    spec.entry("ipFamilies").or_insert(families);
}

/// A replaced service keeps the addresses that it does not mention.
fn keep_service_addresses(old: &Value, service: &mut Fields) {
    let old = at(old, &["spec"]);
    let Some(spec) = object(service, "spec") else { return };
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind == "ExternalName" || text(old, "type") == "ExternalName" {
        return;
    }
    for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if spec.get(key).is_none_or(is_zero) && has(old, key) {
            spec.insert(key.to_owned(), old[key].clone());
        }
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        let old_ports = list(old, "ports");
        for port in crate::json::objects(spec, "ports") {
            let same = |old: &&Value| {
                old.get("port") == port.get("port") && old.get("protocol") == port.get("protocol")
            };
            if port.get("nodePort").is_none_or(is_zero)
                && let Some(number) = old_ports.iter().find(same).and_then(|old| old.get("nodePort"))
            {
                port.insert("nodePort".to_owned(), number.clone());
            }
        }
    }
}
