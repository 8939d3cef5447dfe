//! Reads an `openAPIV3Schema` into the shared [`Schema`] and checks that it is structural.

use std::sync::Arc;

use serde_json::{Map, Number, Value};

use super::share::shared;
use crate::field::{self, FieldError};
use crate::model::{Constraints, ListKind, Rule, Schema, SchemaRef, Type};
use crate::pattern::Pattern;

/// Schemas nested deeper than this are refused.
const MAX_DEPTH: usize = 200;

/// Reads the schema at `path`; problems are added to `errors`.
pub(super) fn read(source: &Value, path: &str, errors: &mut Vec<FieldError>) -> Arc<Schema> {
    let reader = Reader { errors };
    reader.root(source, path)
}

struct Reader<'a> {
    errors: &'a mut Vec<FieldError>,
}

impl Reader<'_> {
    fn root(mut self, source: &Value, path: &str) -> Arc<Schema> {
        let schema = self.node(source, path, Place::Field, 0);
        let explicit = source.get("type").and_then(Value::as_str);
        match explicit {
            Some("object") => {}
            None => self
                .errors
                .push(FieldError::required(field::child(path, "type"), "must not be empty at the root")),
            Some(other) => self.errors.push(FieldError::invalid(
                field::child(path, "type"),
                other,
                "must be object at the root",
            )),
        }
        schema
    }

    fn node(&mut self, source: &Value, path: &str, place: Place, depth: usize) -> Arc<Schema> {
        let Some(source) = source.as_object() else {
            self.errors.push(FieldError::invalid(path, source.clone(), "must be an object"));
            return Arc::default();
        };
        if depth > MAX_DEPTH {
            self.errors.push(FieldError::forbidden(path, "schema is nested too deeply"));
            return Arc::default();
        }
        self.check(source, path, place);
        let mut schema = Schema {
            kind: self.kind(source, path),
            required: texts(source.get("required")),
            list: list_kind(source),
            atomic_map: text(source, "x-kubernetes-map-type") == Some("atomic"),
            preserve_unknown: flag(source, "x-kubernetes-preserve-unknown-fields"),
            int_or_string: flag(source, "x-kubernetes-int-or-string"),
            embedded_resource: flag(source, "x-kubernetes-embedded-resource"),
            nullable: flag(source, "nullable"),
            default: source.get("default").cloned(),
            format: text(source, "format").map(str::to_owned),
            description: text(source, "description").map(str::to_owned),
            constraints: self.constraints(source, path, depth),
            ..Schema::default()
        };
        let inner = if place == Place::Junctor { Place::Junctor } else { Place::Field };
        if let Some(properties) = source.get("properties").and_then(Value::as_object) {
            let below = field::child(path, "properties");
            for (name, property) in properties {
                let property = self.node(property, &field::key(&below, name), inner, depth + 1);
                schema.properties.insert(name.clone(), SchemaRef::Inline(property));
            }
        }
        match source.get("additionalProperties") {
            Some(additional @ Value::Object(_)) => {
                let below = field::child(path, "additionalProperties");
                schema.additional = Some(SchemaRef::Inline(self.node(additional, &below, inner, depth + 1)));
            }
            Some(Value::Bool(true)) => schema.preserve_unknown = true,
            _ => {}
        }
        if let Some(items) = source.get("items") {
            let below = field::child(path, "items");
            schema.items = Some(SchemaRef::Inline(self.node(items, &below, inner, depth + 1)));
        }
        shared(schema)
    }

    fn kind(&mut self, source: &Map<String, Value>, path: &str) -> Type {
        match text(source, "type") {
            None | Some("") => Type::Any,
            Some("object") => Type::Object,
            Some("array") => Type::Array,
            Some("string") => Type::String,
            Some("integer") => Type::Integer,
            Some("number") => Type::Number,
            Some("boolean") => Type::Boolean,
            Some(other) => {
                let supported = ["array", "boolean", "integer", "number", "object", "string"];
                self.errors.push(FieldError::not_supported(field::child(path, "type"), other, supported));
                Type::Any
            }
        }
    }

    fn constraints(&mut self, source: &Map<String, Value>, path: &str, depth: usize) -> Constraints {
        let count = |name: &str| source.get(name).and_then(Value::as_u64);
        let mut junctors = |name: &str| -> Vec<SchemaRef> {
            let below = field::child(path, name);
            let Some(parts) = source.get(name).and_then(Value::as_array) else { return Vec::new() };
            let place = |position| field::index(&below, position);
            (0_usize..)
                .zip(parts)
                .map(|(position, part)| {
                    SchemaRef::Inline(self.node(part, &place(position), Place::Junctor, depth + 1))
                })
                .collect()
        };
        let (all_of, any_of, one_of) = (junctors("allOf"), junctors("anyOf"), junctors("oneOf"));
        let not = source.get("not").map(|part| {
            SchemaRef::Inline(self.node(part, &field::child(path, "not"), Place::Junctor, depth + 1))
        });
        let pattern = text(source, "pattern").and_then(|pattern| {
            let refuse = |error| {
                let detail = format!("must be a valid regular expression, but isn't: {error}");
                self.errors.push(FieldError::invalid(field::child(path, "pattern"), pattern, detail));
            };
            Pattern::new(pattern).map_err(refuse).ok()
        });
        Constraints {
            enumeration: source.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
            minimum: number(source, "minimum").map(|value| (value, flag(source, "exclusiveMinimum"))),
            maximum: number(source, "maximum").map(|value| (value, flag(source, "exclusiveMaximum"))),
            multiple_of: number(source, "multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            pattern,
            min_items: count("minItems"),
            max_items: count("maxItems"),
            unique_items: flag(source, "uniqueItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            all_of,
            any_of,
            one_of,
            not,
            rules: rules(source),
        }
    }

    /// The rules that make a schema structural.
    fn check(&mut self, source: &Map<String, Value>, path: &str, place: Place) {
        let has = |name: &str| source.contains_key(name);
        let at = |name: &str| field::child(path, name);
        let kind = text(source, "type").unwrap_or_default();
        if place == Place::Field {
            if kind.is_empty()
                && !flag(source, "x-kubernetes-int-or-string")
                && !flag(source, "x-kubernetes-preserve-unknown-fields")
            {
                let detail = match path.rsplit('.').next() {
                    Some("openAPIV3Schema") => return,
                    Some("items") => "must not be empty for specified array items",
                    _ => "must not be empty for specified object fields",
                };
                self.errors.push(FieldError::required(at("type"), detail));
            }
        } else {
            const OUTSIDE: [&str; 3] = ["description", "default", "nullable"];
            for name in OUTSIDE {
                if has(name) {
                    self.errors.push(FieldError::forbidden(at(name), "must be undefined to be structural"));
                }
            }
        }
        if kind == "array" && place == Place::Field && !has("items") {
            self.errors.push(FieldError::required(at("items"), "must be specified"));
        }
        if flag(source, "uniqueItems") {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.errors.push(FieldError::forbidden(at("uniqueItems"), detail));
        }
        if has("properties")
            && source.get("additionalProperties").is_some_and(|value| value != &Value::Bool(false))
        {
            self.errors.push(FieldError::forbidden(
                at("additionalProperties"),
                "additionalProperties and properties are mutual exclusive",
            ));
        }
        if source.get("additionalProperties") == Some(&Value::Bool(false)) {
            self.errors.push(FieldError::forbidden(
                at("additionalProperties"),
                "additionalProperties cannot be set to false",
            ));
        }
        for name in
            ["$ref", "definitions", "dependencies", "patternProperties", "additionalItems", "id", "$schema"]
        {
            if has(name) {
                self.errors.push(FieldError::forbidden(at(name), format!("{name} is not supported")));
            }
        }
        self.check_list(source, path, kind);
    }

    fn check_list(&mut self, source: &Map<String, Value>, path: &str, kind: &str) {
        let list_type = field::child(path, "x-kubernetes-list-type");
        match text(source, "x-kubernetes-list-type") {
            Some("map") if texts(source.get("x-kubernetes-list-map-keys")).is_empty() => {
                let keys = field::child(path, "x-kubernetes-list-map-keys");
                let detail = "must not be empty if x-kubernetes-list-type is map";
                self.errors.push(FieldError::required(keys, detail));
            }
            None | Some("atomic" | "set" | "map") => {}
            Some(other) => {
                self.errors.push(FieldError::not_supported(
                    list_type.clone(),
                    other,
                    ["atomic", "map", "set"],
                ));
            }
        }
        if source.contains_key("x-kubernetes-list-type") && kind != "array" {
            self.errors.push(FieldError::invalid(
                field::child(path, "type"),
                kind,
                "must be array if x-kubernetes-list-type is set",
            ));
        }
        if flag(source, "x-kubernetes-embedded-resource") && kind != "object" {
            self.errors.push(FieldError::invalid(
                field::child(path, "type"),
                kind,
                "must be object if x-kubernetes-embedded-resource is true",
            ));
        }
    }
}

/// Where a schema stands: as the schema of a field, or inside `allOf`, `anyOf`, `oneOf`, `not`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Field,
    Junctor,
}

fn text<'a>(source: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    source.get(name).and_then(Value::as_str)
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn flag(source: &Map<String, Value>, name: &str) -> bool {
    source.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn number(source: &Map<String, Value>, name: &str) -> Option<Number> {
    source.get(name).and_then(Value::as_number).cloned()
}

fn list_kind(source: &Map<String, Value>) -> ListKind {
    match text(source, "x-kubernetes-list-type") {
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map(texts(source.get("x-kubernetes-list-map-keys"))),
        _ => ListKind::Atomic,
    }
}

fn rules(source: &Map<String, Value>) -> Vec<Rule> {
    let list =
        source.get("x-kubernetes-validations").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    list.iter()
        .filter_map(Value::as_object)
        .map(|rule| Rule {
            rule: text(rule, "rule").unwrap_or_default().to_owned(),
            message: text(rule, "message").map(str::to_owned),
            message_expression: text(rule, "messageExpression").map(str::to_owned),
            reason: text(rule, "reason").map(str::to_owned),
            field_path: text(rule, "fieldPath").map(str::to_owned),
            optional_old_self: flag(rule, "optionalOldSelf"),
        })
        .collect()
}
