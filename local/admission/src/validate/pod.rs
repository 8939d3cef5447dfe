//! Pods: their spec, and the little of it that may change.

use serde_json::{Value, json};

use super::{container, meta, one_of, resources, volume};
use crate::field::{Errors, FieldError, Path};
use crate::json::{at, has, integer, is_zero, list, text};
use crate::names;

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                         `spec.tolerations` (only additions to existing tolerations),\
                         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Checks a pod.
pub(super) fn state(pod: &Value, errors: &mut Errors) {
    spec(at(pod, &["spec"]), &Path::root("spec"), errors);
}

/// Checks a pod template's labels, annotations and spec.
pub(super) fn template(template: &Value, path: &Path<'_>, errors: &mut Errors) {
    let metadata = at(template, &["metadata"]);
    meta::labels(metadata, "labels", path, errors);
    meta::annotations(metadata, path, errors);
    spec(at(template, &["spec"]), &path.field("spec"), errors);
}

fn spec(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let volumes = volume::volumes(spec, path, errors);
    container::containers(spec, &volumes, path, errors);
    container::init_containers(spec, &volumes, path, errors);
    resources::requirements(at(spec, &["resources"]), &path.field("resources"), errors);
    one_of(spec, "restartPolicy", &["Always", "OnFailure", "Never"], path, errors);
    let dns_policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(spec, "dnsPolicy", &dns_policies, path, errors);
    meta::labels(spec, "nodeSelector", path, errors);
    host_network(spec, path, errors);
    scheduling_gates(spec, path, errors);
    for key in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        let name = text(spec, key);
        if !name.is_empty() {
            errors.invalid_each(&path.field(key), name, names::dns1123_subdomain(name));
        }
    }
    if let Some(seconds) =
        integer(spec, "activeDeadlineSeconds").filter(|seconds| !(1..=i64::from(i32::MAX)).contains(seconds))
    {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(&path.field("activeDeadlineSeconds"), seconds, detail));
    }
    for key in ["hostname", "subdomain"] {
        let name = text(spec, key);
        if !name.is_empty() {
            errors.invalid_each(&path.field(key), name, names::dns1123_label(name));
        }
    }
    tolerations(spec, path, errors);
    let policy = text(spec, "preemptionPolicy");
    if !matches!(policy, "" | "Never" | "PreemptLowerPriority") {
        let supported = ["PreemptLowerPriority", "Never"];
        errors.push(FieldError::not_supported(&path.field("preemptionPolicy"), policy, &supported));
    }
}

/// In the host's network, a port is the host's port.
fn host_network(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    if spec.get("hostNetwork") != Some(&Value::Bool(true)) {
        return;
    }
    let path = path.field("containers");
    for (container_index, container) in list(spec, "containers").iter().enumerate() {
        let path = path.index(container_index);
        let path = path.field("ports");
        for (index, port) in list(container, "ports").iter().enumerate() {
            let host_port = integer(port, "hostPort").unwrap_or_default();
            if host_port != integer(port, "containerPort").unwrap_or_default() {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(&path.index(index).field("hostPort"), host_port, detail));
            }
        }
    }
}

fn scheduling_gates(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let gates_path = path.field("schedulingGates");
    let mut seen: Vec<&str> = Vec::new();
    let gates = list(spec, "schedulingGates");
    for (index, gate) in gates.iter().enumerate() {
        let (name, path) = (text(gate, "name"), gates_path.index(index));
        errors.invalid_each(&path, name, names::qualified_name(name));
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(&path.field("name"), name));
        }
        seen.push(name);
    }
    if !gates.is_empty() && !text(spec, "nodeName").is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden(&path.field("nodeName"), detail));
    }
}

fn tolerations(spec: &Value, parent: &Path<'_>, errors: &mut Errors) {
    let path = parent.field("tolerations");
    for (index, toleration) in list(spec, "tolerations").iter().enumerate() {
        let path = path.index(index);
        let [key, operator, value, effect] =
            ["key", "operator", "value", "effect"].map(|field| text(toleration, field));
        if !key.is_empty() {
            errors.invalid_each(&path.field("key"), key, names::qualified_name(key));
        } else if operator != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&path.field("operator"), operator, detail));
        }
        if has(toleration, "tolerationSeconds") && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(&path.field("effect"), effect, detail));
        }
        match operator {
            "" | "Equal" => {
                let first: Vec<String> = names::label_value(value).into_iter().take(1).collect();
                errors.invalid_each(&path.field("operator"), value, first);
            }
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(&path.field("operator"), toleration.clone(), detail));
            }
            "Exists" => {}
            other => {
                errors.push(FieldError::not_supported(&path.field("operator"), other, &["Equal", "Exists"]));
            }
        }
        if !matches!(effect, "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
            let supported = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            errors.push(FieldError::not_supported(&path.field("effect"), effect, &supported));
        }
    }
}

/// Checks a change of a pod: almost nothing of its spec may change. Kubernetes appends a diff of its internal types to
/// the last message, which has no equal here: its first line is the whole message.
pub(super) fn change(old: &Value, new: &Value, errors: &mut Errors) {
    let (old, new) = (at(old, &["spec"]), at(new, &["spec"]));
    let path = Path::root("spec");
    for key in ["containers", "initContainers"] {
        if list(old, key).len() != list(new, key).len() {
            errors.push(FieldError::forbidden(
                &path.field(key),
                "pod updates may not add or remove containers",
            ));
            return;
        }
    }
    deadline(old, new, errors);
    let (before, after) = (list(old, "tolerations"), list(new, "tolerations"));
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(fields) = toleration.as_object_mut() {
            fields.remove("tolerationSeconds");
        }
        toleration
    };
    let kept =
        |toleration: &Value| after.iter().any(|other| without_seconds(other) == without_seconds(toleration));
    if !before.iter().all(kept) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden("spec.tolerations", detail));
    }
    let gates = list(old, "schedulingGates");
    for (index, gate) in
        list(new, "schedulingGates").iter().enumerate().filter(|(_, gate)| !gates.contains(gate))
    {
        let detail =
            format!("only deletion is allowed, but found new scheduling gate '{}'", text(gate, "name"));
        errors.push(FieldError::forbidden(format!("spec.schedulingGates[{index}].name"), detail));
    }
    if !gates.is_empty() {
        super::gated::steering(old, new, errors);
    }
    if fixed_part(old, old) != fixed_part(new, old) {
        let detail = format!("pod updates may not change fields other than {UPDATABLE}\n");
        errors.push(FieldError::forbidden("spec", detail));
    }
}

fn deadline(old: &Value, new: &Value, errors: &mut Errors) {
    let field = "spec.activeDeadlineSeconds";
    match (integer(old, "activeDeadlineSeconds"), integer(new, "activeDeadlineSeconds")) {
        (Some(before), Some(after)) if after > before => {
            errors.push(FieldError::invalid(field, after, "must be less than or equal to previous value"));
        }
        (Some(_), None) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(field, json!(""), detail));
        }
        _ => {}
    }
}

/// A spec without the parts that may change (`old` decides about some of them) and without fields that say nothing.
fn fixed_part(spec: &Value, old: &Value) -> Value {
    let mut spec = spec.clone();
    let gated = !list(old, "schedulingGates").is_empty();
    let negative_grace = integer(old, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0);
    let grace_to_one = negative_grace
        && (integer(&spec, "terminationGracePeriodSeconds") == Some(1)
            || spec.get("terminationGracePeriodSeconds") == old.get("terminationGracePeriodSeconds"));
    let Some(fields) = spec.as_object_mut() else { return spec };
    for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        fields.remove(key);
    }
    if grace_to_one {
        fields.remove("terminationGracePeriodSeconds");
    }
    if gated {
        fields.remove("nodeSelector");
        if let Some(affinity) = crate::json::object_if(fields, "affinity") {
            affinity.remove("nodeAffinity");
        }
    }
    for key in ["containers", "initContainers"] {
        for container in crate::json::objects(fields, key) {
            container.remove("image");
        }
    }
    prune(&mut spec);
    spec
}

/// Removes fields that are zero or empty: Go cannot tell them from missing ones.
fn prune(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|_, value| !is_zero(value));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}
