//! Leases, budgets, autoscalers, quotas, events, nodes and classes.

use serde_json::{Value, json};

use super::{non_negative, resources};
use crate::field::{Errors, FieldError, Path};
use crate::json::{at, entries, has, integer, is_zero, list, text};
use crate::names;
use crate::quantity::Quantity;

pub(super) fn lease(object: &Value, errors: &mut Errors) {
    let (spec, path) = (at(object, &["spec"]), Path::root("spec"));
    if let Some(seconds) = integer(spec, "leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
        errors.push(FieldError::invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"));
    }
    non_negative(spec, "leaseTransitions", &path, errors);
}

/// A budget's spec as Kubernetes' internal type prints it.
fn internal_budget(spec: &Value) -> String {
    let field = |key| at(spec, &[key]).to_string();
    format!(
        "{{\"MinAvailable\":{},\"Selector\":{},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":{}}}",
        field("minAvailable"),
        field("selector"),
        field("maxUnavailable"),
        field("unhealthyPodEvictionPolicy")
    )
}

pub(super) fn disruption_budget(object: &Value, errors: &mut Errors) {
    let (spec, path) = (at(object, &["spec"]), Path::root("spec"));
    if has(spec, "minAvailable") && has(spec, "maxUnavailable") {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        errors.push(FieldError::invalid_rendered("spec", &internal_budget(spec), detail));
    }
    for key in ["minAvailable", "maxUnavailable"] {
        non_negative(spec, key, &path, errors);
    }
}

pub(super) fn autoscaler(object: &Value, errors: &mut Errors) {
    let spec = at(object, &["spec"]);
    let (minimum, maximum) = (integer(spec, "minReplicas"), integer(spec, "maxReplicas").unwrap_or_default());
    if let Some(minimum) = minimum.filter(|minimum| *minimum < 1) {
        let detail = "must be greater than or equal to 1";
        errors.push(FieldError::invalid("spec.minReplicas", minimum, detail));
    }
    if maximum < 1 {
        errors.push(FieldError::invalid("spec.maxReplicas", maximum, "must be greater than 0"));
    }
    if minimum.is_some_and(|minimum| maximum < minimum) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid("spec.maxReplicas", maximum, detail));
    }
    let path = Path::root("spec");
    let path = path.field("scaleTargetRef");
    for key in ["kind", "name"] {
        super::required(at(spec, &["scaleTargetRef"]), key, &path, errors);
    }
}

pub(super) fn scale(object: &Value, errors: &mut Errors) {
    non_negative(at(object, &["spec"]), "replicas", &Path::root("spec"), errors);
}

pub(super) fn resource_quota(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let path = path.field("hard");
    for (name, value) in entries(at(object, &["spec"]), "hard") {
        let path = path.key(name);
        errors.invalid_each(&path, name, names::qualified_name(name));
        if let Some(quantity) = Quantity::from_json(value) {
            resources::quantity(quantity, &path, errors);
        }
    }
}

pub(super) fn event(object: &Value, errors: &mut Errors) {
    let namespace = text(at(object, &["metadata"]), "namespace");
    let involved = text(at(object, &["involvedObject"]), "namespace");
    // Objects outside namespaces have their events in `default`.
    let expected = if involved.is_empty() { "default" } else { involved };
    if !involved.is_empty() && namespace != expected {
        let detail = "does not match event.namespace";
        errors.push(FieldError::invalid("involvedObject.namespace", involved, detail));
    }
}

pub(super) fn node(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let path = path.field("taints");
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (index, taint) in list(at(object, &["spec"]), "taints").iter().enumerate() {
        let path = path.index(index);
        let [key, value, effect] = ["key", "value", "effect"].map(|field| text(taint, field));
        errors.invalid_each(&path.field("key"), key, names::qualified_name(key));
        let first: Vec<String> = names::label_value(value).into_iter().take(1).collect();
        errors.invalid_each(&path.field("value"), value, first);
        super::one_of(taint, "effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"], &path, errors);
        if seen.contains(&(key, effect)) {
            let value = json!({"key": key, "value": value, "effect": effect});
            let mut duplicate = FieldError::duplicate(&path, value);
            "taints must be unique by key and effect pair".clone_into(&mut duplicate.detail);
            errors.push(duplicate);
        }
        seen.push((key, effect));
    }
}

pub(super) fn priority_class_change(old: &Value, new: &Value, errors: &mut Errors) {
    for key in ["value", "preemptionPolicy"] {
        let (before, after) = (at(old, &[key]), at(new, &[key]));
        if before != after && !(is_zero(before) && is_zero(after)) {
            match key {
                "value" => errors.push(FieldError::forbidden("value", "may not be changed in an update.")),
                _ => errors.push(FieldError::invalid(key, after.clone(), "field is immutable")),
            }
        }
    }
}

pub(super) fn role_binding_change(old: &Value, new: &Value, errors: &mut Errors) {
    if at(old, &["roleRef"]) != at(new, &["roleRef"]) {
        errors.push(FieldError::invalid("roleRef", at(new, &["roleRef"]).clone(), "cannot change roleRef"));
    }
}
