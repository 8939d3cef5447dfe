//! The rules of `x-kubernetes-list-type`: entries of sets and keyed lists occur once.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::correlate::old_item;
use super::validate::inline;
use crate::field::{self, FieldError};
use crate::model::{ListKind, Schema};

/// Finds repeated entries; a list that has not changed since `old` is left alone.
pub(super) fn validate(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    if old == Some(value) {
        return;
    }
    match value {
        Value::Array(items) => {
            match &schema.list {
                ListKind::Atomic => {}
                ListKind::Set => repeats(items, path, errors, Clone::clone),
                ListKind::Map(keys) => repeats(items, path, errors, |item| key_values(keys, item)),
            }
            let Some(below) = schema.items.as_ref().and_then(inline) else { return };
            for (position, item) in items.iter().enumerate() {
                let old = old_item(&schema.list, old, item);
                validate(below, item, old, &field::index(path, position), errors);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let old = old.and_then(|old| old.get(name));
                if let Some(below) = schema.properties.get(name).and_then(inline) {
                    validate(below, value, old, &field::child(path, name), errors);
                } else if let Some(below) = schema.additional.as_ref().and_then(inline) {
                    validate(below, value, old, &field::key(path, name), errors);
                }
            }
        }
        _ => {}
    }
}

fn repeats(items: &[Value], path: &str, errors: &mut Vec<FieldError>, identity: impl Fn(&Value) -> Value) {
    let mut seen = HashSet::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        let identity = identity(item);
        if !seen.insert(identity.to_string()) {
            errors.push(FieldError::duplicate(field::index(path, position), identity));
        }
    }
}

fn key_values(keys: &[String], item: &Value) -> Value {
    let values: Map<String, Value> =
        keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect();
    Value::Object(values)
}
