//! The `metadata` of custom objects and of resources embedded in them, which their schemas leave out.

use serde_json::Value;

use super::validate::inline;
use crate::field::{self, FieldError};
use crate::model::Schema;

/// The JSON shape of a metadata field.
#[derive(Clone, Copy)]
enum Shape {
    Text,
    Whole,
    TextMap,
    Texts,
    Objects,
}

/// The fields of `ObjectMeta`.
const FIELDS: [(&str, Shape); 15] = [
    ("annotations", Shape::TextMap),
    ("creationTimestamp", Shape::Text),
    ("deletionGracePeriodSeconds", Shape::Whole),
    ("deletionTimestamp", Shape::Text),
    ("finalizers", Shape::Texts),
    ("generateName", Shape::Text),
    ("generation", Shape::Whole),
    ("labels", Shape::TextMap),
    ("managedFields", Shape::Objects),
    ("name", Shape::Text),
    ("namespace", Shape::Text),
    ("ownerReferences", Shape::Objects),
    ("resourceVersion", Shape::Text),
    ("selfLink", Shape::Text),
    ("uid", Shape::Text),
];

impl Shape {
    fn fits(self, value: &Value) -> bool {
        let all = |fits: fn(&Value) -> bool| value.as_array().is_some_and(|items| items.iter().all(fits));
        value.is_null()
            || match self {
                Self::Text => value.is_string(),
                Self::Whole => value.is_i64() || value.is_u64(),
                Self::TextMap => value.as_object().is_some_and(|map| map.values().all(Value::is_string)),
                Self::Texts => all(Value::is_string),
                Self::Objects => all(Value::is_object),
            }
    }
}

/// Removes unknown metadata fields of the object and of embedded resources; returns their paths.
pub(super) fn prune(schema: &Schema, object: &mut Value) -> Vec<String> {
    let mut removed = Vec::new();
    visit_mut(schema, object, true, "", &mut |metadata, path| {
        if let Some(fields) = metadata.as_object_mut() {
            fields.retain(|name, _| {
                let known = FIELDS.iter().any(|(field, _)| field == name);
                if !known {
                    removed.push(field::child(path, name));
                }
                known
            });
        }
    });
    removed
}

/// Checks the type fields and the metadata of embedded resources, and the metadata's types everywhere.
pub(super) fn validate(schema: &Schema, object: &Value, errors: &mut Vec<FieldError>) {
    node(schema, object, "", true, errors);
}

fn node(schema: &Schema, value: &Value, path: &str, root: bool, errors: &mut Vec<FieldError>) {
    if schema.embedded_resource && !root && value.is_object() {
        for name in ["apiVersion", "kind"] {
            if value.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                errors.push(FieldError::required(field::child(path, name), "must not be empty"));
            }
        }
    }
    if (root || schema.embedded_resource)
        && let Some(metadata) = value.get("metadata")
    {
        check(metadata, &field::child(path, "metadata"), errors);
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(below) = schema.properties.get(name).and_then(inline) {
                    node(below, value, &field::child(path, name), false, errors);
                } else if let Some(below) = schema.additional.as_ref().and_then(inline) {
                    node(below, value, &field::key(path, name), false, errors);
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = schema.items.as_ref().and_then(inline) {
                for (position, item) in items.iter().enumerate() {
                    node(below, item, &field::index(path, position), false, errors);
                }
            }
        }
        _ => {}
    }
}

fn check(metadata: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(fields) = metadata.as_object() else {
        errors.push(FieldError::invalid(path, metadata.clone(), "must be an object"));
        return;
    };
    for (name, shape) in FIELDS {
        if let Some(value) = fields.get(name)
            && !shape.fits(value)
        {
            errors.push(FieldError::invalid(field::child(path, name), value.clone(), "has the wrong type"));
        }
    }
}

fn visit_mut(
    schema: &Schema,
    value: &mut Value,
    root: bool,
    path: &str,
    visit: &mut dyn FnMut(&mut Value, &str),
) {
    if (root || schema.embedded_resource)
        && let Some(metadata) = value.get_mut("metadata")
    {
        visit(metadata, &field::child(path, "metadata"));
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let below = schema.properties.get(name).or(schema.additional.as_ref()).and_then(inline);
                if let Some(below) = below {
                    visit_mut(below, value, false, &field::child(path, name), visit);
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = schema.items.as_ref().and_then(inline) {
                for (position, item) in items.iter_mut().enumerate() {
                    visit_mut(below, item, false, &field::index(path, position), visit);
                }
            }
        }
        _ => {}
    }
}
