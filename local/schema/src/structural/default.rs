//! Fills in the default values of a structural schema.

use serde_json::Value;

use super::validate::inline;
use crate::model::Schema;

/// Drops nulls where null is not allowed and fills in defaults, inside lists and maps too.
pub(super) fn apply(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| {
                let below = schema.properties.get(name).and_then(inline);
                !(value.is_null() && below.is_some_and(|below| !below.nullable))
            });
            for (name, property) in &schema.properties {
                if let Some(default) = inline(property).and_then(|property| property.default.as_ref())
                    && !fields.contains_key(name)
                {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                if let Some(property) = schema.properties.get(name).and_then(inline) {
                    apply(property, value);
                } else if let Some(additional) = schema.additional.as_ref().and_then(inline) {
                    entry(additional, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = schema.items.as_ref().and_then(inline) {
                for item in items {
                    entry(below, item);
                }
            }
        }
        _ => {}
    }
}

fn entry(schema: &Schema, value: &mut Value) {
    if value.is_null()
        && !schema.nullable
        && let Some(default) = &schema.default
    {
        *value = default.clone();
    }
    apply(schema, value);
}
