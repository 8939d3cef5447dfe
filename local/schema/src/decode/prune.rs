//! Removes from a value what Go's decoder would not keep.

use serde_json::{Map, Value};

use crate::catalogue::Catalogue;
use crate::model::{Schema, SchemaRef, Type};

/// Removes fields that the kind does not have and fields that are null. In lists and maps, where an entry counts
/// even when it is null, a null becomes the type's zero value.
pub fn prune(schema: &SchemaRef, value: &mut Value) {
    let catalogue = Catalogue::get();
    prune_value(catalogue, &catalogue.resolve(schema), value);
}

fn prune_value(catalogue: &Catalogue, schema: &Schema, value: &mut Value) {
    if schema.preserve_unknown {
        return;
    }
    match value {
        Value::Object(object) => match &schema.additional {
            Some(values) => {
                let values = catalogue.resolve(values);
                object.values_mut().for_each(|value| prune_entry(catalogue, &values, value));
            }
            None if schema.kind == Type::Object => object.retain(|name, value| {
                let Some(property) = schema.properties.get(name).filter(|_| !value.is_null()) else {
                    return false;
                };
                prune_value(catalogue, &catalogue.resolve(property), value);
                true
            }),
            None => {}
        },
        Value::Array(items) => {
            if let Some(item) = &schema.items {
                let item = catalogue.resolve(item);
                for value in items {
                    prune_entry(catalogue, &item, value);
                }
            }
        }
        _ => {}
    }
}

fn prune_entry(catalogue: &Catalogue, schema: &Schema, value: &mut Value) {
    if value.is_null() {
        *value = match schema.kind {
            _ if schema.int_or_string => 0.into(),
            Type::String if schema.format.as_deref() == Some("quantity") => "0".into(),
            Type::String => "".into(),
            Type::Integer | Type::Number => 0.into(),
            Type::Boolean => false.into(),
            Type::Object if schema.additional.is_none() => Value::Object(Map::new()),
            Type::Object | Type::Array | Type::Any => return,
        };
    }
    prune_value(catalogue, schema, value);
}
