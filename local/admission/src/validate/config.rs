//! Config maps, secrets and claims.

use serde_json::Value;

use crate::field::{Errors, FieldError, Path};
use crate::json::{at, entries, flag, is_zero, list, text};
use crate::names;

/// The largest config map or secret, in bytes of data.
const SIZE_LIMIT: usize = 1024 * 1024;
const IMMUTABLE: &str = "field is immutable when `immutable` is set";

fn size(value: &Value) -> usize {
    value.as_str().map_or(0, str::len)
}

/// How many bytes base64 text stands for.
fn decoded_size(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    text.len() / 4 * 3 - text.bytes().rev().take_while(|byte| *byte == b'=').count().min(text.len() / 4 * 3)
}

pub(super) fn config_map(object: &Value, errors: &mut Errors) {
    let mut total = 0;
    for (field, measure) in [("data", size as fn(&Value) -> usize), ("binaryData", decoded_size)] {
        let path = Path::root(field);
        for (key, value) in entries(object, field) {
            errors.invalid_each(&path.key(key), key, names::config_key(key));
            if field == "binaryData" && object.get("data").is_some_and(|data| data.get(key).is_some()) {
                let detail = "duplicate of key present in data";
                errors.push(FieldError::invalid(&path.key(key), key, detail));
            }
            total += measure(value);
        }
    }
    if total > SIZE_LIMIT {
        errors.push(FieldError::too_long("", SIZE_LIMIT));
    }
}

/// What an object marked `immutable` keeps.
fn frozen(old: &Value, new: &Value, fields: &[&str], errors: &mut Errors) {
    if !flag(old, "immutable") {
        return;
    }
    if !flag(new, "immutable") {
        errors.push(FieldError::forbidden("immutable", IMMUTABLE));
    }
    for field in fields {
        let (before, after) = (at(old, &[field]), at(new, &[field]));
        if before != after && !(is_zero(before) && is_zero(after)) {
            errors.push(FieldError::forbidden(*field, IMMUTABLE));
        }
    }
}

pub(super) fn config_map_change(old: &Value, new: &Value, errors: &mut Errors) {
    frozen(old, new, &["data", "binaryData"], errors);
}

pub(super) fn secret(object: &Value, errors: &mut Errors) {
    let path = Path::root("data");
    let mut total = 0;
    for (key, value) in entries(object, "data") {
        errors.invalid_each(&path.key(key), key, names::config_key(key));
        total += decoded_size(value);
    }
    if total > SIZE_LIMIT {
        errors.push(FieldError::too_long("data", SIZE_LIMIT));
    }
    let needed: &[&str] = match text(object, "type") {
        "kubernetes.io/service-account-token" => {
            let annotations = at(object, &["metadata", "annotations"]);
            if text(annotations, "kubernetes.io/service-account.name").is_empty() {
                let field = "metadata.annotations[kubernetes.io/service-account.name]";
                errors.push(FieldError::required(field, ""));
            }
            &[]
        }
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in needed.iter().filter(|key| at(object, &["data", key]).is_null()) {
        errors.push(FieldError::required(&path.key(key), ""));
    }
}

pub(super) fn secret_change(old: &Value, new: &Value, errors: &mut Errors) {
    super::immutable(old, new, &["type"], errors);
    frozen(old, new, &["data"], errors);
}

pub(super) fn claim(object: &Value, errors: &mut Errors) {
    let (spec, path) = (at(object, &["spec"]), Path::root("spec"));
    let modes = list(spec, "accessModes");
    if modes.is_empty() {
        errors.push(FieldError::required("spec.accessModes", "at least 1 access mode is required"));
    }
    let supported = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in modes.iter().filter(|mode| !mode.as_str().is_some_and(|mode| supported.contains(&mode))) {
        errors.push(FieldError::not_supported("spec.accessModes", mode.clone(), &supported));
    }
    let requests = at(spec, &["resources", "requests"]);
    if text(requests, "storage").is_empty() {
        errors.push(FieldError::required("spec.resources[storage]", ""));
    }
    let name = text(spec, "storageClassName");
    if !name.is_empty() {
        errors.invalid_each(&path.field("storageClassName"), name, names::dns1123_subdomain(name));
    }
}

pub(super) fn claim_change(old: &Value, new: &Value, errors: &mut Errors) {
    let bound = text(at(old, &["status"]), "phase") == "Bound";
    let fixed = |object: &Value| {
        let mut spec = at(object, &["spec"]).clone();
        if let Some(fields) = spec.as_object_mut() {
            // The binder fills in the volume, once.
            if text(at(old, &["spec"]), "volumeName").is_empty() {
                fields.remove("volumeName");
            }
            if bound {
                fields.remove("resources");
                fields.remove("volumeAttributesClassName");
            }
        }
        spec
    };
    if fixed(old) != fixed(new) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                      bound claims\n";
        errors.push(FieldError::forbidden("spec", detail));
    }
}
