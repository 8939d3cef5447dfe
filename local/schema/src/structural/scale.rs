//! Checks the values that the `/scale` subresource of a custom resource reads.

use serde_json::Value;

use super::ScalePaths;
use crate::field::FieldError;

/// Checks the replicas and the selector that the paths lead to.
pub(super) fn validate(scale: &ScalePaths, object: &Value, errors: &mut Vec<FieldError>) {
    replicas(&scale.spec_replicas, object, errors);
    replicas(&scale.status_replicas, object, errors);
    if let Some(path) = scale.label_selector.as_deref().filter(|path| !path.is_empty())
        && let Err(detail) = find(path, object, "string", Value::is_string)
    {
        errors.push(FieldError::invalid(path, "", detail));
    }
}

fn replicas(path: &str, object: &Value, errors: &mut Vec<FieldError>) {
    match find(path, object, "int64", Value::is_i64) {
        Err(detail) => errors.push(FieldError::invalid(path, 0, detail)),
        Ok(Some(value)) => {
            let count = value.as_i64().unwrap_or_default();
            if count < 0 {
                errors.push(FieldError::invalid(path, count, "should be a non-negative integer"));
            } else if count > i64::from(i32::MAX) {
                let detail = format!("should be less than or equal to {}", i32::MAX);
                errors.push(FieldError::invalid(path, count, detail));
            }
        }
        Ok(None) => {}
    }
}

/// The value at `path`, or what is in the way, as Kubernetes' accessors put it.
fn find<'a>(
    path: &str,
    object: &'a Value,
    wanted: &str,
    fits: impl Fn(&Value) -> bool,
) -> Result<Option<&'a Value>, String> {
    let names: Vec<&str> = path.trim_start_matches('.').split('.').collect();
    let mut value = object;
    for (position, name) in names.iter().enumerate() {
        let Some(fields) = value.as_object() else {
            let so_far = names[..=position].join(".");
            let (shown, kind) = go_value(value);
            return Err(format!(
                ".{so_far} accessor error: {shown} is of the type {kind}, expected map[string]interface{{}}"
            ));
        };
        let Some(next) = fields.get(*name) else { return Ok(None) };
        value = next;
    }
    if fits(value) {
        return Ok(Some(value));
    }
    let (shown, kind) = go_value(value);
    Err(format!(".{} accessor error: {shown} is of the type {kind}, expected {wanted}", names.join(".")))
}

/// A value and its type as Go prints them.
fn go_value(value: &Value) -> (String, &'static str) {
    match value {
        Value::Null => ("<nil>".to_owned(), "<nil>"),
        Value::Bool(flag) => (flag.to_string(), "bool"),
        Value::Number(number) if number.is_f64() => (number.to_string(), "float64"),
        Value::Number(number) => (number.to_string(), "int64"),
        Value::String(text) => (text.clone(), "string"),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| go_value(item).0).collect();
            (format!("[{}]", items.join(" ")), "[]interface {}")
        }
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name}:{}", go_value(value).0)).collect();
            (format!("map[{}]", fields.join(" ")), "map[string]interface {}")
        }
    }
}
