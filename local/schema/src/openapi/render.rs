//! A schema as OpenAPI v3 writes it.

use serde_json::{Map, Value, json};

use super::reference;
use crate::model::{Constraints, ListKind, Rule, Schema, SchemaRef, Type};

/// Renders a schema. Built-in definitions become references below `#/components/schemas/`, each of which is
/// passed to `used`.
pub fn render(schema: &SchemaRef, used: &mut impl FnMut(&str)) -> Value {
    match schema {
        SchemaRef::Definition(name) => {
            used(name);
            reference(name)
        }
        SchemaRef::Inline(schema) => Value::Object(render_schema(schema, used)),
    }
}

fn render_schema(schema: &Schema, used: &mut impl FnMut(&str)) -> Map<String, Value> {
    let mut result = Map::new();
    // The types with two JSON forms are published like this, not by the keywords that the catalogue marks them with.
    match schema.format.as_deref() {
        Some("int-or-string") if schema.int_or_string => {
            result.insert("format".into(), "int-or-string".into());
            result.insert("oneOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
            return result;
        }
        Some("quantity") if schema.kind == Type::String && schema.constraints == Constraints::default() => {
            result.insert("oneOf".into(), json!([{"type": "string"}, {"type": "number"}]));
            return result;
        }
        _ => {}
    }
    let mut set = |keyword: &str, value: Option<Value>| {
        if let Some(value) = value {
            result.insert(keyword.to_owned(), value);
        }
    };
    let strategy = (!schema.patch_strategy.is_empty()).then(|| schema.patch_strategy.join(",").into());
    if let Some(name) = &schema.definition {
        used(name);
        set("allOf", Some(json!([reference(name)])));
        set("x-kubernetes-patch-strategy", strategy);
        return result;
    }
    let flag = |flag: bool| flag.then_some(Value::Bool(true));
    set("type", type_name(schema.kind).map(Value::from));
    set("format", schema.format.as_deref().map(Value::from));
    set("description", schema.description.as_deref().map(Value::from));
    set("default", schema.default.clone());
    set("nullable", flag(schema.nullable));
    set("required", (!schema.required.is_empty()).then(|| json!(schema.required)));
    set("additionalProperties", schema.additional.as_ref().map(|inner| render(inner, used)));
    set("items", schema.items.as_ref().map(|inner| render(inner, used)));
    if !schema.properties.is_empty() {
        let properties = schema.properties.iter();
        let properties: Map<_, _> =
            properties.map(|(name, inner)| (name.clone(), render(inner, used))).collect();
        set("properties", Some(properties.into()));
    }
    match &schema.list {
        ListKind::Atomic => {}
        ListKind::Set => set("x-kubernetes-list-type", Some("set".into())),
        ListKind::Map(keys) => {
            set("x-kubernetes-list-type", Some("map".into()));
            set("x-kubernetes-list-map-keys", Some(json!(keys)));
        }
    }
    set("x-kubernetes-map-type", schema.atomic_map.then(|| "atomic".into()));
    set("x-kubernetes-patch-merge-key", schema.patch_merge_key.as_deref().map(Value::from));
    set("x-kubernetes-patch-strategy", strategy);
    set("x-kubernetes-preserve-unknown-fields", flag(schema.preserve_unknown));
    set("x-kubernetes-int-or-string", flag(schema.int_or_string));
    set("x-kubernetes-embedded-resource", flag(schema.embedded_resource));
    render_constraints(&schema.constraints, used, &mut result);
    result
}

fn render_constraints(
    constraints: &Constraints,
    used: &mut impl FnMut(&str),
    result: &mut Map<String, Value>,
) {
    let mut set = |keyword: &str, value: Option<Value>| {
        if let Some(value) = value {
            result.insert(keyword.to_owned(), value);
        }
    };
    set("enum", (!constraints.enumeration.is_empty()).then(|| constraints.enumeration.clone().into()));
    for (bound, keyword, exclusive) in [
        (&constraints.minimum, "minimum", "exclusiveMinimum"),
        (&constraints.maximum, "maximum", "exclusiveMaximum"),
    ] {
        if let Some((number, excluded)) = bound {
            set(keyword, Some(number.clone().into()));
            set(exclusive, excluded.then_some(true.into()));
        }
    }
    set("multipleOf", constraints.multiple_of.clone().map(Value::Number));
    set("minLength", constraints.min_length.map(Value::from));
    set("maxLength", constraints.max_length.map(Value::from));
    set("pattern", constraints.pattern.as_ref().map(|pattern| pattern.as_str().into()));
    set("minItems", constraints.min_items.map(Value::from));
    set("maxItems", constraints.max_items.map(Value::from));
    set("uniqueItems", constraints.unique_items.then_some(true.into()));
    set("minProperties", constraints.min_properties.map(Value::from));
    set("maxProperties", constraints.max_properties.map(Value::from));
    for (keyword, schemas) in
        [("allOf", &constraints.all_of), ("anyOf", &constraints.any_of), ("oneOf", &constraints.one_of)]
    {
        let rendered: Vec<_> = schemas.iter().map(|inner| render(inner, used)).collect();
        set(keyword, (!rendered.is_empty()).then(|| rendered.into()));
    }
    set("not", constraints.not.as_ref().map(|inner| render(inner, used)));
    let rules: Vec<_> = constraints.rules.iter().map(render_rule).collect();
    set("x-kubernetes-validations", (!rules.is_empty()).then(|| rules.into()));
}

fn render_rule(rule: &Rule) -> Value {
    let mut result = Map::new();
    result.insert("rule".into(), rule.rule.as_str().into());
    for (keyword, text) in [
        ("message", &rule.message),
        ("messageExpression", &rule.message_expression),
        ("reason", &rule.reason),
        ("fieldPath", &rule.field_path),
    ] {
        if let Some(text) = text {
            result.insert(keyword.into(), text.as_str().into());
        }
    }
    if rule.optional_old_self {
        result.insert("optionalOldSelf".into(), true.into());
    }
    result.into()
}

fn type_name(kind: Type) -> Option<&'static str> {
    Some(match kind {
        Type::Any => return None,
        Type::Object => "object",
        Type::Array => "array",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
    })
}
