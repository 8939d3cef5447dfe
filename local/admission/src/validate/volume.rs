//! Volumes of a pod.

use serde_json::Value;

use super::required;
use crate::field::{Errors, FieldError, Path};
use crate::json::{at, has, integer, list, text};
use crate::names;

/// Checks the volumes of a pod and returns the names of the sound ones.
pub(super) fn volumes<'a>(spec: &'a Value, parent: &Path<'_>, errors: &mut Errors) -> Vec<&'a str> {
    let path = parent.field("volumes");
    let mut sound: Vec<&str> = Vec::new();
    for (index, volume) in list(spec, "volumes").iter().enumerate() {
        let path = path.index(index);
        let mut own = Errors::new();
        source(volume, &path, &mut own);
        let name = text(volume, "name");
        if required(volume, "name", &path, &mut own) {
            own.invalid_each(&path.field("name"), name, names::dns1123_label(name));
        }
        if sound.contains(&name) {
            own.push(FieldError::duplicate(&path.field("name"), name));
        }
        let own = own.into_vec();
        if own.is_empty() {
            sound.push(name);
        }
        for error in own {
            errors.push(error);
        }
    }
    sound
}

fn source(volume: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(fields) = volume.as_object() else { return };
    let mut first = true;
    for (key, source) in fields.iter().filter(|(key, value)| *key != "name" && !value.is_null()) {
        let path = path.field(key);
        if !std::mem::replace(&mut first, false) {
            errors.push(FieldError::forbidden(&path, "may not specify more than 1 volume type"));
            continue;
        }
        match key.as_str() {
            "hostPath" => {
                required(source, "path", &path, errors);
                if text(source, "path").split('/').any(|part| part == "..") {
                    let detail = "must not contain '..'";
                    errors.push(FieldError::invalid(&path.field("path"), text(source, "path"), detail));
                }
            }
            "secret" => {
                required(source, "secretName", &path, errors);
                files(source, &path, errors);
            }
            "configMap" => {
                required(source, "name", &path, errors);
                files(source, &path, errors);
            }
            "persistentVolumeClaim" => {
                required(source, "claimName", &path, errors);
            }
            "projected" => projected(source, &path, errors),
            _ => {}
        }
    }
    if first {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
}

/// The files that keys become.
fn files(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mode = |holder: &Value, key: &str, path: &Path<'_>, errors: &mut Errors| {
        if let Some(mode) = integer(holder, key).filter(|mode| !(0..=0o777).contains(mode)) {
            let detail = "must be a number between 0 and 0777 (octal), both inclusive";
            errors.push(FieldError::invalid(&path.field(key), mode, detail));
        }
    };
    mode(source, "defaultMode", path, errors);
    let path = path.field("items");
    for (index, item) in list(source, "items").iter().enumerate() {
        let path = path.index(index);
        required(item, "key", &path, errors);
        required(item, "path", &path, errors);
        let target = text(item, "path");
        if target.starts_with('/') {
            errors.push(FieldError::invalid(&path.field("path"), target, "must be a relative path"));
        }
        if target.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(&path.field("path"), target, "must not contain '..'"));
        }
        mode(item, "mode", &path, errors);
    }
}

fn projected(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.field("sources");
    for (index, projection) in list(source, "sources").iter().enumerate() {
        let path = path.index(index);
        for key in ["secret", "configMap"] {
            if has(projection, key) {
                required(at(projection, &[key]), "name", &path.field(key), errors);
                files(at(projection, &[key]), &path.field(key), errors);
            }
        }
        if has(projection, "serviceAccountToken") {
            required(
                at(projection, &["serviceAccountToken"]),
                "path",
                &path.field("serviceAccountToken"),
                errors,
            );
        }
    }
}
