//! Validation of the built-in kinds: what a Kubernetes 1.36 server refuses, in its words and its order.

mod config;
mod container;
mod gated;
mod job;
mod meta;
mod pod;
mod resources;
mod service;
mod various;
mod volume;
mod workload;

use serde_json::{Value, json};

use crate::field::{Errors, FieldError, Path};
use crate::group;
use crate::json::{integer, is_zero, text};

/// Checks a new object, or the new state of an updated one.
type Check = fn(&Value, &mut Errors);
/// Checks a change: old, new.
type Change = fn(&Value, &Value, &mut Errors);

/// What is checked for one kind besides its metadata.
struct Rules {
    group: &'static str,
    kind: &'static str,
    state: Check,
    change: Change,
}

const fn rules(group: &'static str, kind: &'static str, state: Check, change: Change) -> Rules {
    Rules { group, kind, state, change }
}

fn any_change(_: &Value, _: &Value, _: &mut Errors) {}

/// Every kind that is validated beyond its metadata.
const KINDS: [Rules; 22] = [
    rules("", "Pod", pod::state, pod::change),
    rules("", "ConfigMap", config::config_map, config::config_map_change),
    rules("", "Secret", config::secret, config::secret_change),
    rules("", "Service", service::state, service::change),
    rules("", "PersistentVolumeClaim", config::claim, config::claim_change),
    rules("", "ResourceQuota", various::resource_quota, any_change),
    rules("", "Event", various::event, any_change),
    rules("", "Node", various::node, any_change),
    rules("apps", "Deployment", workload::deployment, workload::deployment_change),
    rules("apps", "ReplicaSet", workload::replica_set, workload::replica_set_change),
    rules("apps", "StatefulSet", workload::stateful_set, workload::stateful_set_change),
    rules("apps", "DaemonSet", workload::daemon_set, workload::daemon_set_change),
    rules("apps", "ControllerRevision", workload::controller_revision, workload::controller_revision_change),
    rules("batch", "Job", job::state, job::change),
    rules("batch", "CronJob", job::cron_job, any_change),
    rules("policy", "PodDisruptionBudget", various::disruption_budget, any_change),
    rules("autoscaling", "HorizontalPodAutoscaler", various::autoscaler, any_change),
    rules("autoscaling", "Scale", various::scale, any_change),
    rules("coordination.k8s.io", "Lease", various::lease, any_change),
    rules("scheduling.k8s.io", "PriorityClass", any_state, various::priority_class_change),
    rules("rbac.authorization.k8s.io", "RoleBinding", any_state, various::role_binding_change),
    rules("rbac.authorization.k8s.io", "ClusterRoleBinding", any_state, various::role_binding_change),
];

fn any_state(_: &Value, _: &mut Errors) {}

fn find(api_version: &str, kind: &str) -> Option<&'static Rules> {
    KINDS.iter().find(|rules| rules.group == group(api_version) && rules.kind == kind)
}

/// Everything wrong with an object that is about to be created (after defaults and preparation). Kinds that this crate
/// does not know have only their metadata checked.
pub fn create(api_version: &str, kind: &str, object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    if kind != "Scale" {
        meta::create(group(api_version), kind, object, &mut errors);
    }
    if let Some(rules) = find(api_version, kind) {
        (rules.state)(object, &mut errors);
    }
    errors.into_vec()
}

/// Everything wrong with the replacement of `old` by `new`, written through `subresource` if any. A write to `/status`
/// has only its metadata checked.
pub fn update(
    api_version: &str,
    kind: &str,
    old: &Value,
    new: &Value,
    subresource: Option<&str>,
) -> Vec<FieldError> {
    let mut errors = Errors::new();
    if kind != "Scale" {
        meta::update(old, new, &mut errors);
    }
    if subresource != Some("status")
        && let Some(rules) = find(api_version, kind)
    {
        (rules.state)(new, &mut errors);
        (rules.change)(old, new, &mut errors);
    }
    errors.into_vec()
}

/// An integer field that may not be below zero.
fn non_negative(holder: &Value, key: &str, parent: &Path<'_>, errors: &mut Errors) {
    if let Some(value) = integer(holder, key).filter(|value| *value < 0) {
        errors.push(FieldError::invalid(&parent.field(key), value, "must be greater than or equal to 0"));
    }
}

/// A text field that must be one of a set.
fn one_of(holder: &Value, key: &str, supported: &[&str], parent: &Path<'_>, errors: &mut Errors) {
    match text(holder, key) {
        "" => errors.push(FieldError::required(&parent.field(key), "")),
        value if supported.contains(&value) => {}
        value => errors.push(FieldError::not_supported(&parent.field(key), value, supported)),
    }
}

/// A text field that must not be empty.
fn required(holder: &Value, key: &str, parent: &Path<'_>, errors: &mut Errors) -> bool {
    let missing = text(holder, key).is_empty();
    if missing {
        errors.push(FieldError::required(&parent.field(key), ""));
    }
    !missing
}

/// A field that may not change once it is set.
fn immutable(old: &Value, new: &Value, keys: &[&str], errors: &mut Errors) {
    let (before, after) = (crate::json::at(old, keys), crate::json::at(new, keys));
    if before != after && !(is_zero(before) && is_zero(after)) {
        errors.push(FieldError::invalid(keys.join("."), after.clone(), "field is immutable"));
    }
}

/// A port by number or name.
fn port(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    match value {
        Value::String(name) => errors.invalid_each(path, name, crate::names::port_name(name)),
        Value::Number(number) => {
            for message in crate::names::port_number(number.as_i64().unwrap_or_default()) {
                errors.push(FieldError::invalid(path, json!(number), message));
            }
        }
        _ => errors.push(FieldError::invalid(path, 0, "must be between 1 and 65535, inclusive")),
    }
}
