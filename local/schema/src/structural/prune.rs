//! Drops fields a structural schema does not know.

use serde_json::Value;

use super::validate::inline;
use crate::field;
use crate::model::Schema;

/// The fields every resource has, which no schema needs to list.
const TYPE_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Removes unknown fields from a whole custom object and returns their paths, sorted.
pub(super) fn prune(schema: &Schema, object: &mut Value) -> Vec<String> {
    let mut removed = Vec::new();
    node(Some(schema), object, true, schema.preserve_unknown, "", &mut removed);
    removed.sort();
    removed
}

/// `resource`: the value is a resource of its own, at the root or embedded. `keep`: unknown fields stay.
fn node(
    schema: Option<&Schema>,
    value: &mut Value,
    resource: bool,
    keep: bool,
    path: &str,
    removed: &mut Vec<String>,
) {
    match value {
        Value::Object(fields) => fields.retain(|name, value| {
            if resource && TYPE_FIELDS.contains(&name.as_str()) {
                return true;
            }
            let path = field::child(path, name);
            let known = schema.and_then(|schema| schema.properties.get(name).or(schema.additional.as_ref()));
            match known {
                Some(below) => {
                    descend(inline(below), value, &path, removed);
                    true
                }
                None if keep => true,
                None => {
                    removed.push(path);
                    false
                }
            }
        }),
        Value::Array(items) => {
            let below = schema.and_then(|schema| schema.items.as_ref()).and_then(inline);
            if keep && below.is_none() {
                return;
            }
            for (position, item) in items.iter_mut().enumerate() {
                descend(below, item, &field::index(path, position), removed);
            }
        }
        _ => {}
    }
}

fn descend(schema: Option<&Schema>, value: &mut Value, path: &str, removed: &mut Vec<String>) {
    let resource = schema.is_some_and(|schema| schema.embedded_resource);
    let keep = schema.is_some_and(|schema| schema.preserve_unknown);
    node(schema, value, resource, keep, path, removed);
}
