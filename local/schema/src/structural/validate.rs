//! Checks values of a custom object against its structural schema, in Kubernetes' words and order.

use serde_json::{Number, Value};

use super::correlate::old_item;
use super::format;
use crate::field::{self, ErrorKind, FieldError};
use crate::model::{Constraints, Schema, SchemaRef, Type};

/// The schema a reference holds. Custom resources have only schemas written in place.
pub(super) fn inline(reference: &SchemaRef) -> Option<&Schema> {
    match reference {
        SchemaRef::Inline(schema) => Some(schema),
        SchemaRef::Definition(_) => None,
    }
}

/// Checks `value`; what has not changed since `old` is not checked again, so that a stricter schema
/// does not lock existing objects.
pub(super) fn validate(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut walker = Walker { errors: Vec::new() };
    walker.node(schema, value, old, "");
    walker.errors
}

/// The errors of a value below `path`.
fn attempt(schema: &Schema, value: &Value, path: &str) -> Vec<FieldError> {
    let mut walker = Walker { errors: Vec::new() };
    walker.node(schema, value, None, path);
    walker.errors
}

/// How many of `parts` hold, and the errors of the one that came nearest.
fn alternatives(parts: &[SchemaRef], value: &Value, path: &str) -> (usize, Vec<FieldError>) {
    let attempts: Vec<_> = parts.iter().filter_map(inline).map(|part| attempt(part, value, path)).collect();
    let matching = attempts.iter().filter(|errors| errors.is_empty()).count();
    (matching, attempts.into_iter().min_by_key(Vec::len).unwrap_or_default())
}

struct Walker {
    errors: Vec<FieldError>,
}

impl Walker {
    fn node(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, path: &str) {
        if old == Some(value) {
            return;
        }
        let fits = self.check_type(schema, value, path);
        if value.is_null() {
            self.check_enumeration(&schema.constraints, value, path);
            return;
        }
        self.check_junctors(&schema.constraints, value, path);
        match value {
            Value::String(text) => {
                self.check_string(&schema.constraints, text, path);
                if fits {
                    self.check_format(schema, text, path);
                }
            }
            Value::Number(number) => self.check_number(&schema.constraints, number, path),
            Value::Array(items) => self.check_items(schema, items, old, path),
            _ => {}
        }
        self.check_enumeration(&schema.constraints, value, path);
        if let Value::Object(fields) = value {
            self.check_fields(schema, fields, old, path);
        }
    }

    fn check_type(&mut self, schema: &Schema, value: &Value, path: &str) -> bool {
        let wanted = if schema.int_or_string { "integer,string" } else { type_name(schema.kind) };
        let fits = if value.is_null() {
            schema.nullable || (schema.kind == Type::Any && !schema.int_or_string)
        } else if schema.int_or_string {
            value.is_string() || is_whole(value)
        } else {
            match schema.kind {
                Type::Any => true,
                Type::Object => value.is_object(),
                Type::Array => value.is_array(),
                Type::String => value.is_string(),
                Type::Integer => is_whole(value),
                Type::Number => value.is_number(),
                Type::Boolean => value.is_boolean(),
            }
        };
        if !fits {
            let found = found_type(value);
            let detail = format!("{path} in body must be of type {wanted}: \"{found}\"");
            self.errors.push(FieldError::type_invalid(path, found, detail));
        }
        fits
    }

    fn check_junctors(&mut self, constraints: &Constraints, value: &Value, path: &str) {
        if !constraints.any_of.is_empty() {
            let (matching, best) = alternatives(&constraints.any_of, value, path);
            if matching == 0 {
                self.composite(format!("\"{path}\" must validate at least one schema (anyOf)"));
                self.errors.extend(best);
            }
        }
        if !constraints.one_of.is_empty() {
            let (matching, best) = alternatives(&constraints.one_of, value, path);
            if matching != 1 {
                let found = match matching {
                    0 => "Found none valid".to_owned(),
                    many => format!("Found {many} valid alternatives"),
                };
                self.composite(format!("\"{path}\" must validate one and only one schema (oneOf). {found}"));
                if matching == 0 {
                    self.errors.extend(best);
                }
            }
        }
        if !constraints.all_of.is_empty() {
            let mut matching = 0;
            for part in constraints.all_of.iter().filter_map(inline) {
                let before = self.errors.len();
                self.node(part, value, None, path);
                matching += usize::from(self.errors.len() == before);
            }
            if matching != constraints.all_of.len() {
                let none = if matching == 0 { ". None validated" } else { "" };
                self.composite(format!("\"{path}\" must validate all the schemas (allOf){none}"));
            }
        }
        if let Some(not) = constraints.not.as_ref().and_then(inline)
            && attempt(not, value, path).is_empty()
        {
            self.composite(format!("\"{path}\" must not validate the schema (not)"));
        }
    }

    /// A problem of the object as a whole, which Kubernetes reports without a path.
    fn composite(&mut self, detail: String) {
        self.errors.push(FieldError::new("", ErrorKind::Invalid, Some("".into()), detail));
    }

    fn invalid(&mut self, path: &str, value: impl Into<Value>, text: &str) {
        self.errors.push(FieldError::invalid(path, value, format!("{path} in body {text}")));
    }

    fn check_string(&mut self, constraints: &Constraints, text: &str, path: &str) {
        if constraints.max_length.is_some() || constraints.min_length.is_some() {
            let length = text.chars().count() as u64;
            if let Some(maximum) = constraints.max_length.filter(|maximum| length > *maximum) {
                self.errors.push(FieldError::too_long(path, maximum));
                return;
            }
            if let Some(minimum) = constraints.min_length.filter(|minimum| length < *minimum) {
                self.invalid(path, text, &format!("should be at least {minimum} chars long"));
                return;
            }
        }
        if let Some(pattern) = &constraints.pattern
            && !pattern.is_match(text)
        {
            self.invalid(path, text, &format!("should match '{}'", pattern.as_str()));
        }
    }

    fn check_format(&mut self, schema: &Schema, text: &str, path: &str) {
        if let Some(format) = &schema.format
            && !schema.int_or_string
            && !format::matches(format, text)
        {
            let detail = format!("{path} in body must be of type {format}: {}", Value::from(text));
            self.errors.push(FieldError::type_invalid(path, text, detail));
        }
    }

    fn check_number(&mut self, constraints: &Constraints, number: &Number, path: &str) {
        let Some(value) = number.as_f64() else { return };
        if let Some(multiple) = &constraints.multiple_of
            && let Some(factor) = multiple.as_f64()
            && factor > 0.0
            && (value / factor).fract() != 0.0
        {
            self.invalid(path, number.clone(), &format!("should be a multiple of {}", go_number(multiple)));
        }
        if let Some((maximum, exclusive)) = &constraints.maximum {
            let limit = maximum.as_f64().unwrap_or(f64::INFINITY);
            if value > limit || (*exclusive && value >= limit) {
                let relation = if *exclusive { "less than" } else { "less than or equal to" };
                self.invalid(path, number.clone(), &format!("should be {relation} {}", go_number(maximum)));
            }
        }
        if let Some((minimum, exclusive)) = &constraints.minimum {
            let limit = minimum.as_f64().unwrap_or(f64::NEG_INFINITY);
            if value < limit || (*exclusive && value <= limit) {
                let relation = if *exclusive { "greater than" } else { "greater than or equal to" };
                self.invalid(path, number.clone(), &format!("should be {relation} {}", go_number(minimum)));
            }
        }
    }

    fn check_items(&mut self, schema: &Schema, items: &[Value], old: Option<&Value>, path: &str) {
        if let Some(item_schema) = schema.items.as_ref().and_then(inline) {
            for (position, item) in items.iter().enumerate() {
                let old = old_item(&schema.list, old, item);
                self.node(item_schema, item, old, &field::index(path, position));
            }
        }
        let constraints = &schema.constraints;
        let count = items.len() as u64;
        if let Some(minimum) = constraints.min_items.filter(|minimum| count < *minimum) {
            self.invalid(path, count, &format!("should have at least {minimum} items"));
        }
        if let Some(maximum) = constraints.max_items.filter(|maximum| count > *maximum) {
            self.errors.push(FieldError::too_many(path, count, maximum));
        }
        if constraints.unique_items && has_repeats(items) {
            self.invalid(path, "", "shouldn't contain duplicates");
        }
    }

    fn check_enumeration(&mut self, constraints: &Constraints, value: &Value, path: &str) {
        let allowed = &constraints.enumeration;
        if allowed.is_empty() || allowed.iter().any(|allowed| same(allowed, value)) {
            return;
        }
        let names: Vec<String> = allowed
            .iter()
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect();
        self.errors.push(FieldError::not_supported(path, value.clone(), names.iter().map(String::as_str)));
    }

    fn check_fields(
        &mut self,
        schema: &Schema,
        fields: &serde_json::Map<String, Value>,
        old: Option<&Value>,
        path: &str,
    ) {
        let constraints = &schema.constraints;
        let count = fields.len() as u64;
        if let Some(minimum) = constraints.min_properties.filter(|minimum| count < *minimum) {
            self.invalid(path, count, &format!("should have at least {minimum} properties"));
        }
        if let Some(maximum) = constraints.max_properties.filter(|maximum| count > *maximum) {
            self.errors.push(FieldError::too_many(path, count, maximum));
        }
        for (name, value) in fields {
            let below = schema.properties.get(name).or(schema.additional.as_ref()).and_then(inline);
            if let Some(below) = below {
                let old = old.and_then(|old| old.get(name));
                self.node(below, value, old, &field::child(path, name));
            }
        }
        for name in &schema.required {
            if !fields.contains_key(name) {
                self.errors.push(FieldError::required(field::child(path, name), ""));
            }
        }
    }
}

fn type_name(kind: Type) -> &'static str {
    match kind {
        Type::Any => "",
        Type::Object => "object",
        Type::Array => "array",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
    }
}

fn found_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_whole(value: &Value) -> bool {
    value
        .as_number()
        .is_some_and(|number| !number.is_f64() || number.as_f64().is_some_and(|n| n.fract() == 0.0))
}

/// Equality of JSON values where `1` and `1.0` are the same number.
pub(super) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            left == right || ((left.is_f64() || right.is_f64()) && left.as_f64() == right.as_f64())
        }
        _ => left == right,
    }
}

fn has_repeats(items: &[Value]) -> bool {
    (1..items.len()).any(|position| items[..position].iter().any(|earlier| same(earlier, &items[position])))
}

/// A number as Go prints it: whole numbers without a fraction.
fn go_number(number: &Number) -> String {
    match number.as_f64() {
        Some(value) if value.fract() == 0.0 && value.abs() < 1e21 => format!("{value:.0}"),
        _ => number.to_string(),
    }
}
