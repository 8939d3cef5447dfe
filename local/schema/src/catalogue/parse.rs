//! Reads one line of the catalogue.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Catalogue, Definition, Message, WireField, WireShape, WireType};
use crate::model::{ListKind, Schema, SchemaRef, Type};

#[derive(Deserialize, Default)]
struct Line {
    #[serde(default)]
    schema: Option<Map<String, Value>>,
    #[serde(default)]
    fields: Vec<(u32, String, String, WireShape)>,
}

/// What a line says. A broken line describes nothing; the tests read every line.
pub(super) fn definition(catalogue: &Catalogue, line: &str) -> Definition {
    let line: Line = serde_json::from_str(line).unwrap_or_default();
    let mut fields: Vec<_> = line.fields.into_iter().map(wire_field).collect();
    fields.sort_by_key(|field| field.number);
    Definition {
        schema: line.schema.as_ref().map(|source| Arc::new(schema(catalogue, source))),
        message: Message { fields },
    }
}

fn wire_field((number, name, kind, shape): (u32, String, String, WireShape)) -> WireField {
    let kind = match kind.as_str() {
        "string" => WireType::String,
        "bool" => WireType::Bool,
        "int" => WireType::Integer,
        "double" => WireType::Double,
        "bytes" => WireType::Bytes,
        message => WireType::Message(message.trim_start_matches('.').to_owned()),
    };
    WireField { number, name, kind, shape }
}

fn reference(catalogue: &Catalogue, source: &Value) -> Option<SchemaRef> {
    let source = source.as_object()?;
    match source.get("$ref").and_then(Value::as_str) {
        Some(name) if source.len() == 1 => Some(SchemaRef::Definition(name.into())),
        _ => Some(SchemaRef::Inline(Arc::new(schema(catalogue, source)))),
    }
}

fn schema(catalogue: &Catalogue, source: &Map<String, Value>) -> Schema {
    let text = |keyword: &str| source.get(keyword).and_then(Value::as_str);
    let flag = |keyword: &str| source.get(keyword).and_then(Value::as_bool).unwrap_or_default();
    let texts = |keyword: &str| -> Vec<String> {
        let items = source.get(keyword).and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    // A reference with keywords beside it is a copy of the definition that these keywords change.
    let definition = text("$ref");
    let base = definition.and_then(|name| catalogue.definition(name));
    let base = base.map(|definition| (*definition).clone()).unwrap_or_default();
    let kind = match text("type") {
        Some("object") => Type::Object,
        Some("array") => Type::Array,
        Some("string") => Type::String,
        Some("integer") => Type::Integer,
        Some("number") => Type::Number,
        Some("boolean") => Type::Boolean,
        _ => base.kind,
    };
    let list = match text("x-kubernetes-list-type") {
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map(texts("x-kubernetes-list-map-keys")),
        _ => ListKind::Atomic,
    };
    let properties = source.get("properties").and_then(Value::as_object).into_iter().flatten();
    let properties =
        properties.filter_map(|(name, inner)| Some((name.clone(), reference(catalogue, inner)?)));
    let strategy = text("x-kubernetes-patch-strategy");
    Schema {
        kind,
        properties: base.properties.into_iter().chain(properties).collect(),
        additional: source.get("additionalProperties").and_then(|inner| reference(catalogue, inner)),
        items: source.get("items").and_then(|inner| reference(catalogue, inner)),
        required: base.required.into_iter().chain(texts("required")).collect(),
        list,
        atomic_map: match text("x-kubernetes-map-type") {
            Some(map_type) => map_type == "atomic",
            None => base.atomic_map,
        },
        patch_merge_key: text("x-kubernetes-patch-merge-key").map(str::to_owned),
        patch_strategy: strategy.into_iter().flat_map(|all| all.split(',')).map(str::to_owned).collect(),
        preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
        int_or_string: flag("x-kubernetes-int-or-string"),
        default: source.get("default").cloned(),
        format: text("format").map(str::to_owned),
        definition: definition.map(Into::into),
        ..Schema::default()
    }
}
