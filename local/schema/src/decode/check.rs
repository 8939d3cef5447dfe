//! Compares a value with its kind, in the words of Go's decoder.

use std::sync::Arc;

use serde_json::{Map, Number, Value};

use super::way::Way;
use super::{MAX_PROBLEMS, scalars};
use crate::catalogue::Catalogue;
use crate::model::{Schema, SchemaRef, Type};

/// What [`check`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Paths of fields that the kind does not have, such as `spec.containers[0].comand`; at most 100.
    pub unknown: Vec<String>,
    /// Values of wrong types. Kubernetes reports the first one and refuses the body whatever `fieldValidation` says.
    pub type_errors: Vec<String>,
}

/// Compares `value` with the built-in kind that `schema` stands for.
pub fn check(schema: &SchemaRef, value: &Value) -> Checked {
    let mut checker = Checker { catalogue: Catalogue::get(), found: Checked::default() };
    checker.value(schema, value, Spot { way: &Way::Root, owner: "" });
    checker.found
}

struct Checker<'a> {
    catalogue: &'a Catalogue,
    found: Checked,
}

const SCHEMA_PROPS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// What a problem is told with.
#[derive(Clone, Copy)]
struct Spot<'a> {
    way: &'a Way<'a>,
    /// The Go struct whose field is being read.
    owner: &'a str,
}

impl<'a> Spot<'a> {
    fn at(self, way: &'a Way<'a>) -> Self {
        Self { way, ..self }
    }
}

impl Checker<'_> {
    fn value(&mut self, reference: &SchemaRef, value: &Value, spot: Spot<'_>) {
        if value.is_null() {
            return;
        }
        if let SchemaRef::Definition(name) = reference
            && name.starts_with(SCHEMA_PROPS)
            && name.len() > SCHEMA_PROPS.len()
        {
            return self.json_schema_variant(value, spot);
        }
        let schema = self.catalogue.resolve(reference);
        if schema.int_or_string {
            return self.int_or_string(value);
        }
        match schema.kind {
            Type::Any => {}
            Type::Object if schema.preserve_unknown => self.expect(value.is_object(), reference, value, spot),
            Type::Object => match value {
                Value::Object(object) => self.object(reference, &schema, object, spot),
                other => self.mismatch(reference, other, spot),
            },
            Type::Array => match (value, &schema.items) {
                (Value::Array(items), Some(item)) => {
                    for (index, value) in items.iter().enumerate() {
                        self.value(item, value, spot.at(&Way::Item(spot.way, index)));
                    }
                }
                (Value::Array(_), None) => {}
                (other, _) => self.mismatch(reference, other, spot),
            },
            Type::String => self.string(reference, &schema, value, spot),
            Type::Boolean => self.expect(value.is_boolean(), reference, value, spot),
            Type::Integer => self.integer(reference, &schema, value, spot),
            Type::Number => self.expect(value.is_number(), reference, value, spot),
        }
    }

    fn object(
        &mut self,
        reference: &SchemaRef,
        schema: &Arc<Schema>,
        object: &Map<String, Value>,
        spot: Spot<'_>,
    ) {
        if let Some(values) = &schema.additional {
            for (key, value) in object {
                self.value(values, value, spot.at(&Way::Key(spot.way, key)));
            }
            return;
        }
        let name = match reference {
            SchemaRef::Definition(name) => Some(name),
            SchemaRef::Inline(_) => schema.definition.as_ref(),
        };
        let owner = name.map_or(spot.owner, |name| last_part(name));
        for (name, value) in object {
            let way = Way::Field(spot.way, name);
            match schema.properties.get(name) {
                Some(property) => self.value(property, value, Spot { way: &way, owner }),
                None if self.found.unknown.len() < MAX_PROBLEMS => self.found.unknown.push(way.to_string()),
                None => return,
            }
        }
    }

    /// `JSONSchemaPropsOrBool` and its like: a schema, a list of schemas or names, or a flag.
    fn json_schema_variant(&mut self, value: &Value, spot: Spot<'_>) {
        let schema = SchemaRef::Definition(SCHEMA_PROPS.into());
        match value {
            Value::Object(_) => self.value(&schema, value, spot),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate().filter(|(_, item)| item.is_object()) {
                    self.value(&schema, item, spot.at(&Way::Item(spot.way, index)));
                }
            }
            _ => {}
        }
    }

    fn int_or_string(&mut self, value: &Value) {
        match value {
            Value::String(_) => {}
            Value::Number(number) if in_range(number, Some("int32")) => {}
            other => {
                let text = format!("json: cannot unmarshal {} into Go value of type int32", go_kind(other));
                self.found.type_errors.push(text);
            }
        }
    }

    fn string(&mut self, reference: &SchemaRef, schema: &Schema, value: &Value, spot: Spot<'_>) {
        let format = schema.format.as_deref();
        let problem = match (format, value) {
            (Some("quantity"), Value::Number(number)) => {
                scalars::quantity(&number.to_string()).map_err(str::to_owned)
            }
            (Some("quantity"), Value::String(text)) => scalars::quantity(text).map_err(str::to_owned),
            (Some("quantity"), other) => scalars::quantity(&other.to_string()).map_err(str::to_owned),
            (Some("date-time"), Value::String(text)) => scalars::time(text),
            (Some("date-time"), other) => {
                Err(format!("json: cannot unmarshal {} into Go value of type string", go_kind(other)))
            }
            (Some("byte"), Value::String(text)) => scalars::base64(text),
            (_, Value::String(_)) => Ok(()),
            (_, other) => return self.mismatch(reference, other, spot),
        };
        self.found.type_errors.extend(problem.err());
    }

    fn integer(&mut self, reference: &SchemaRef, schema: &Schema, value: &Value, spot: Spot<'_>) {
        match value {
            Value::Number(number) if in_range(number, schema.format.as_deref()) => {}
            Value::Number(number) => self.report(reference, &format!("number {number}"), spot),
            other => self.mismatch(reference, other, spot),
        }
    }

    fn expect(&mut self, fits: bool, reference: &SchemaRef, value: &Value, spot: Spot<'_>) {
        if !fits {
            self.mismatch(reference, value, spot);
        }
    }

    fn mismatch(&mut self, reference: &SchemaRef, value: &Value, spot: Spot<'_>) {
        self.report(reference, go_kind(value), spot);
    }

    fn report(&mut self, reference: &SchemaRef, found: &str, spot: Spot<'_>) {
        if self.found.type_errors.len() >= MAX_PROBLEMS {
            return;
        }
        let wanted = go_type(self.catalogue, reference);
        let fields = spot.way.fields();
        let place = if fields.is_empty() {
            "Go value".to_owned()
        } else {
            format!("Go struct field {}.{}", spot.owner, fields.join("."))
        };
        self.found.type_errors.push(format!("json: cannot unmarshal {found} into {place} of type {wanted}"));
    }
}

fn in_range(number: &Number, format: Option<&str>) -> bool {
    match format {
        Some("int32") => number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        _ => number.as_i64().is_some(),
    }
}

/// What Go's parser calls a value.
pub(crate) fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// The Go type that a schema was made from.
fn go_type(catalogue: &Catalogue, reference: &SchemaRef) -> String {
    let schema = catalogue.resolve(reference);
    let name = match reference {
        SchemaRef::Definition(name) => Some(name),
        SchemaRef::Inline(_) => schema.definition.as_ref(),
    };
    if let Some(name) = name {
        let mut parts = name.rsplit('.');
        let (last, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        return format!("{package}.{last}");
    }
    let inner = |reference: &Option<SchemaRef>| {
        reference.as_ref().map_or_else(|| "interface {}".to_owned(), |inner| go_type(catalogue, inner))
    };
    match (schema.kind, schema.format.as_deref()) {
        (Type::String, Some("byte")) => "[]uint8".to_owned(),
        (Type::String, _) => "string".to_owned(),
        (Type::Integer, Some("int32")) => "int32".to_owned(),
        (Type::Integer, _) => "int64".to_owned(),
        (Type::Number, _) => "float64".to_owned(),
        (Type::Boolean, _) => "bool".to_owned(),
        (Type::Array, _) => format!("[]{}", inner(&schema.items)),
        (Type::Object, _) => format!("map[string]{}", inner(&schema.additional)),
        (Type::Any, _) => "interface {}".to_owned(),
    }
}
