//! Turns JSON values into CEL values, guided by the schema.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cel::objects::{Key, Map};
use chrono::{DateTime, TimeDelta};
use serde_json::Value;

use crate::model::{Schema, SchemaRef, Type};
use crate::structural::format::duration_nanoseconds;

/// The schema a reference holds.
pub(super) fn inline(reference: &SchemaRef) -> Option<&Schema> {
    match reference {
        SchemaRef::Inline(schema) => Some(schema),
        SchemaRef::Definition(_) => None,
    }
}

/// The CEL value of `value`. At the root only the name fields of `metadata` can be seen.
pub(super) fn to_cel(schema: &Schema, value: &Value, root: bool) -> cel::Value {
    match value {
        Value::Object(fields) => {
            let mut map = HashMap::with_capacity(fields.len());
            for (name, value) in fields {
                let resource = root || schema.embedded_resource;
                if resource && matches!(name.as_str(), "apiVersion" | "kind") {
                    map.insert(text_key(name), untyped(value));
                } else if resource && name == "metadata" {
                    map.insert(text_key(name), metadata(value));
                } else if let Some(property) = schema.properties.get(name).and_then(inline) {
                    map.insert(text_key(&escape(name)), to_cel(property, value, false));
                } else if let Some(additional) = schema.additional.as_ref().and_then(inline) {
                    map.insert(text_key(name), to_cel(additional, value, false));
                } else {
                    map.insert(text_key(name), untyped(value));
                }
            }
            cel::Value::Map(Map { map: Arc::new(map) })
        }
        Value::Array(items) => {
            let items = match schema.items.as_ref().and_then(inline) {
                Some(below) => items.iter().map(|item| to_cel(below, item, false)).collect(),
                None => items.iter().map(untyped).collect(),
            };
            cel::Value::List(Arc::new(items))
        }
        Value::Number(number) if schema.kind == Type::Number => {
            cel::Value::Float(number.as_f64().unwrap_or_default())
        }
        Value::Number(number) if schema.kind == Type::Integer => match number.as_i64() {
            Some(whole) => cel::Value::Int(whole),
            None => cel::Value::Int(number.as_f64().unwrap_or_default() as i64),
        },
        Value::String(text) => match &schema.format {
            Some(format) => formatted(format, text).unwrap_or_else(|| untyped(value)),
            None => untyped(value),
        },
        _ => untyped(value),
    }
}

/// The value of a text whose format has a type of its own in CEL.
fn formatted(format: &str, text: &str) -> Option<cel::Value> {
    Some(match format {
        "byte" => cel::Value::Bytes(Arc::new(STANDARD.decode(text).ok()?)),
        "duration" => cel::Value::Duration(TimeDelta::nanoseconds(duration_nanoseconds(text)?)),
        "date-time" => timestamp(text.parse().ok()?)?,
        "date" => {
            let midnight = text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
            timestamp(midnight.timestamp())?
        }
        _ => return None,
    })
}

fn timestamp(time: jiff::Timestamp) -> Option<cel::Value> {
    let nanoseconds = u32::try_from(time.as_nanosecond().rem_euclid(1_000_000_000)).ok()?;
    let seconds = i64::try_from(time.as_nanosecond().div_euclid(1_000_000_000)).ok()?;
    let time = DateTime::from_timestamp(seconds, nanoseconds)?;
    Some(cel::Value::Timestamp(time.fixed_offset()))
}

fn metadata(value: &Value) -> cel::Value {
    let fields = ["name", "generateName"].iter().filter_map(|name| {
        let value = value.get(*name)?;
        Some((text_key(name), untyped(value)))
    });
    cel::Value::Map(Map { map: Arc::new(fields.collect()) })
}

fn untyped(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(flag) => cel::Value::Bool(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => cel::Value::Int(whole),
            None => cel::Value::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => cel::Value::String(Arc::new(text.clone())),
        Value::Array(items) => cel::Value::List(Arc::new(items.iter().map(untyped).collect())),
        Value::Object(fields) => {
            let map = fields.iter().map(|(name, value)| (text_key(name), untyped(value))).collect();
            cel::Value::Map(Map { map: Arc::new(map) })
        }
    }
}

fn text_key(name: &str) -> Key {
    Key::String(Arc::new(name.to_owned()))
}

/// Words that CEL reserves.
const RESERVED: [&str; 19] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
];

/// A property name as rules write it: `a-b` is `a__dash__b`, `namespace` is `__namespace__`.
fn escape(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    if !name.contains("__") && !name.contains(['.', '-', '/']) {
        return name.to_owned();
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn escapes_names() {
        assert_eq!(escape("x-prop"), "x__dash__prop");
        assert_eq!(escape("redact__d"), "redact__underscores__d");
        assert_eq!(escape("namespace"), "__namespace__");
        assert_eq!(escape("plain_name"), "plain_name");
    }
}
