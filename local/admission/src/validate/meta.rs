//! Object metadata: names by kind, labels, annotations, owners, finalizers, and what may never change.

use serde_json::Value;

use crate::field::{Errors, FieldError, Path};
use crate::json::{at, has, list, text, texts};
use crate::names;

/// All annotations of an object together, keys and values, in bytes.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;
/// Finalizers that Kubernetes itself uses; any other must be qualified with a domain.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

type NameRule = fn(&str) -> Vec<String>;

/// How objects of a kind are named.
fn name_rule(group: &str, kind: &str) -> NameRule {
    match (group, kind) {
        ("", "Namespace" | "Service") => names::dns1123_label,
        ("rbac.authorization.k8s.io", _) => names::path_segment,
        _ => names::dns1123_subdomain,
    }
}

/// Whether a kind lives outside namespaces; `None` when this crate does not know it.
fn is_cluster_wide(group: &str, kind: &str) -> Option<bool> {
    Some(match (group, kind) {
        ("", "Namespace" | "Node" | "PersistentVolume")
        | ("storage.k8s.io", "StorageClass")
        | ("scheduling.k8s.io", "PriorityClass")
        | ("rbac.authorization.k8s.io", "ClusterRole" | "ClusterRoleBinding") => true,
        ("" | "apps" | "batch", _)
        | ("policy", "PodDisruptionBudget")
        | ("coordination.k8s.io", "Lease")
        | ("rbac.authorization.k8s.io", "Role" | "RoleBinding")
        | ("discovery.k8s.io", "EndpointSlice") => false,
        _ => return None,
    })
}

/// Checks the metadata of a new object.
pub(super) fn create(group: &str, kind: &str, object: &Value, errors: &mut Errors) {
    let metadata = at(object, &["metadata"]);
    let path = Path::root("metadata");
    let rule = name_rule(group, kind);
    let (name, generate_name) = (text(metadata, "name"), text(metadata, "generateName"));
    if !generate_name.is_empty() {
        // What follows the prefix is generated: a dash at its end will not be the last character.
        let prefix = generate_name
            .strip_suffix('-')
            .map_or_else(|| generate_name.to_owned(), |stem| format!("{stem}a"));
        errors.invalid_each(&path.field("generateName"), generate_name, rule(&prefix));
    }
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else {
        errors.invalid_each(&path.field("name"), name, rule(name));
    }
    let namespace = text(metadata, "namespace");
    match is_cluster_wide(group, kind) {
        Some(true) if !namespace.is_empty() => {
            errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type"));
        }
        Some(false) if namespace.is_empty() => errors.push(FieldError::required("metadata.namespace", "")),
        Some(true) => {}
        _ if namespace.is_empty() => {}
        _ => errors.invalid_each(&path.field("namespace"), namespace, names::dns1123_label(namespace)),
    }
    common(metadata, &path, errors);
}

fn common(metadata: &Value, path: &Path<'_>, errors: &mut Errors) {
    labels(metadata, "labels", path, errors);
    annotations(metadata, path, errors);
    owners(metadata, errors);
    finalizers(metadata, path, errors);
}

/// Checks a map of labels: keys are qualified names, values label values.
pub(super) fn labels(holder: &Value, key: &str, parent: &Path<'_>, errors: &mut Errors) {
    let path = parent.field(key);
    for (name, value) in texts(holder, key) {
        errors.invalid_each(&path, name, names::qualified_name(name));
        errors.invalid_each(&path, value, names::label_value(value));
    }
}

/// Checks annotations: qualified keys (in any case), and their size together.
pub(super) fn annotations(metadata: &Value, parent: &Path<'_>, errors: &mut Errors) {
    let path = parent.field("annotations");
    let mut size = 0;
    for (name, value) in texts(metadata, "annotations") {
        errors.invalid_each(&path, name, names::qualified_name(&name.to_lowercase()));
        size += name.len() + value.len();
    }
    if size > ANNOTATIONS_LIMIT {
        errors.push(FieldError::too_long(&path, ANNOTATIONS_LIMIT));
    }
}

fn owners(metadata: &Value, errors: &mut Errors) {
    let base = Path::root("metadata");
    let path = base.field("ownerReferences");
    let mut controller: Option<&str> = None;
    for owner in list(metadata, "ownerReferences") {
        let api_version = text(owner, "apiVersion");
        let version = api_version.rsplit_once('/').map_or(api_version, |(_, version)| version);
        if version.is_empty() {
            errors.push(FieldError::invalid(
                &path.field("apiVersion"),
                api_version,
                "version must not be empty",
            ));
        }
        for key in ["kind", "name", "uid"] {
            if text(owner, key).is_empty() {
                errors.push(FieldError::invalid(&path.field(key), "", format!("{key} must not be empty")));
            }
        }
        if (api_version, text(owner, "kind")) == ("v1", "Event") {
            errors.push(FieldError::invalid(
                &path,
                owner.clone(),
                "/v1, Kind=Event is disallowed from being an owner",
            ));
        }
        if owner.get("controller") == Some(&Value::Bool(true)) {
            if let Some(first) = controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                    text(owner, "name")
                );
                errors.push(FieldError::invalid(&path, metadata["ownerReferences"].clone(), detail));
            } else {
                controller = Some(text(owner, "name"));
            }
        }
    }
}

fn finalizers(metadata: &Value, parent: &Path<'_>, errors: &mut Errors) {
    let path = parent.field("finalizers");
    let names: Vec<&str> = list(metadata, "finalizers").iter().filter_map(Value::as_str).collect();
    for (index, name) in names.iter().enumerate() {
        let messages = names::qualified_name(name);
        let well_formed = messages.is_empty();
        errors.invalid_each(&path.index(index), name, messages);
        if well_formed && !name.contains('/') && !STANDARD_FINALIZERS.contains(name) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(&path.index(index), *name, detail));
        }
    }
    if names.contains(&"orphan") && names.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(&path, metadata["finalizers"].clone(), detail));
    }
}

/// Checks the metadata of a replacement.
pub(super) fn update(old: &Value, new: &Value, errors: &mut Errors) {
    let (old, metadata) = (at(old, &["metadata"]), at(new, &["metadata"]));
    let path = Path::root("metadata");
    let generation =
        |metadata: &Value| metadata.get("generation").and_then(Value::as_i64).unwrap_or_default();
    if has(old, "deletionTimestamp") {
        let finalizers = |metadata| list(metadata, "finalizers").iter().filter_map(Value::as_str);
        let known: Vec<&str> = finalizers(old).collect();
        let mut added: Vec<String> =
            finalizers(metadata).filter(|name| !known.contains(name)).map(crate::field::quote).collect();
        added.sort();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.push(FieldError::forbidden("metadata.finalizers", detail));
        }
    }
    if has(metadata, "resourceVersion") && text(metadata, "resourceVersion").is_empty() {
        errors.push(FieldError::invalid("metadata.resourceVersion", "", "must be specified for an update"));
    }
    if generation(metadata) < generation(old) {
        let detail = "must not be decremented";
        errors.push(FieldError::invalid("metadata.generation", generation(metadata), detail));
    }
    for key in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        let (before, after) = (at(old, &[key]), at(metadata, &[key]));
        if before != after && !(crate::json::is_zero(before) && crate::json::is_zero(after)) {
            errors.push(FieldError::invalid(&path.field(key), after.clone(), "field is immutable"));
        }
    }
    common(metadata, &path, errors);
}
