//! `meta.k8s.io` tables: the columns that kubectl prints.

use jiff::Timestamp;
use muster_admission::printing;
use serde_json::{Value, json};

use crate::app::Call;
use crate::read::partial;

/// A table of objects (with their types).
pub(crate) fn table(call: &Call, version: &str, metadata: &Value, objects: &[Value]) -> Value {
    let include = call.query.filled("includeObject").unwrap_or("Metadata");
    let (api_version, kind, now) = (call.resource.api_version(), &call.resource.kind, Timestamp::now());
    let custom = call.resource.custom.as_ref().and_then(|custom| custom.columns.as_ref());
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells = match custom {
                Some(columns) => columns.row(object, now),
                None => printing::row(&api_version, kind, object, now),
            };
            let mut row = json!({ "cells": cells });
            match include {
                "None" => {}
                "Object" => row["object"] = object.clone(),
                _ => row["object"] = partial(object),
            }
            row
        })
        .collect();
    let columns = match custom {
        Some(columns) => Value::Array(columns.definitions()),
        None => json!(printing::columns(&api_version, kind)),
    };
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}
