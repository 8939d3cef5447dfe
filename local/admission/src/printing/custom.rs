//! Columns that a custom resource definition declares.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::duration::{between, time};
use super::jsonpath::{JsonPath, JsonPathError};
use super::{NAME, name};
use crate::json::{integer, text};

/// The compiled `additionalPrinterColumns` of one version of a custom resource.
#[derive(Debug, Clone)]
pub struct CustomColumns {
    columns: Vec<CustomColumn>,
}

#[derive(Debug, Clone)]
struct CustomColumn {
    definition: Value,
    cell_type: String,
    path: JsonPath,
}

impl CustomColumns {
    /// Compiles declared columns; without any, a custom resource shows its age.
    pub fn compile(declared: &[Value]) -> Result<Self, JsonPathError> {
        let age = [json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"})];
        let declared = if declared.is_empty() { &age[..] } else { declared };
        let columns = declared.iter().map(|column| {
            let path = text(column, "jsonPath");
            let described = text(column, "description");
            let description = if described.is_empty() {
                format!("Custom resource definition column (in JSONPath format): {path}")
            } else {
                described.to_owned()
            };
            Ok(CustomColumn {
                definition: json!({
                    "name": text(column, "name"),
                    "type": text(column, "type"),
                    "format": text(column, "format"),
                    "description": description,
                    "priority": integer(column, "priority").unwrap_or_default(),
                }),
                cell_type: text(column, "type").to_owned(),
                path: JsonPath::parse(path)?,
            })
        });
        Ok(Self { columns: columns.collect::<Result<_, _>>()? })
    }

    /// The entries of `columnDefinitions`, the name first.
    pub fn definitions(&self) -> Vec<Value> {
        let name = serde_json::to_value(NAME).unwrap_or_default();
        std::iter::once(name).chain(self.columns.iter().map(|column| column.definition.clone())).collect()
    }

    /// The cells of one object; null where the object has no such value.
    pub fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let cell = |column: &CustomColumn| match column.path.find(object).first() {
            Some(value) => cell(&column.cell_type, value, now),
            None => Value::Null,
        };
        std::iter::once(name(object)).chain(self.columns.iter().map(cell)).collect()
    }
}

fn cell(cell_type: &str, value: &Value, now: Timestamp) -> Value {
    match cell_type {
        "string" => match value {
            Value::String(text) => json!(text),
            other => json!(other.to_string()),
        },
        "integer" => value
            .as_i64()
            .or_else(|| value.as_f64().map(|number| number as i64))
            .map_or(Value::Null, Value::from),
        "number" if value.is_number() => value.clone(),
        "boolean" if value.is_boolean() => value.clone(),
        "date" if value.is_string() => {
            json!(time(value).map_or_else(|| "<invalid>".to_owned(), |time| between(time, now)))
        }
        _ => Value::Null,
    }
}
