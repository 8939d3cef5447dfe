//! `meta.k8s.io` tables: the columns that kubectl prints.

use serde_json::{Value, json};

use crate::app::Call;
use crate::meta::meta;
use crate::read::partial;

/// A table of objects (with their types).
pub(crate) fn table(call: &Call, version: &str, metadata: &Value, objects: &[Value]) -> Value {
    let include = call.query.filled("includeObject").unwrap_or("Metadata");
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells = json!([meta(object, "name"), meta(object, "creationTimestamp")]);
            let mut row = json!({ "cells": cells });
            match include {
                "None" => {}
                "Object" => row["object"] = object.clone(),
                _ => row["object"] = partial(object),
            }
            row
        })
        .collect();
    let columns = json!([
        { "name": "Name", "type": "string", "format": "name", "description": "", "priority": 0 },
        { "name": "Created At", "type": "date", "format": "", "description": "", "priority": 0 },
    ]);
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}
