//! The two faces of an event: `v1` and `events.k8s.io/v1` are one stored object with other field names.

use serde_json::{Value, json};

/// Pairs of field names: `v1`, `events.k8s.io/v1`.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Turns an event of either version into the other form asked for; any other object stays as it is.
pub fn event(api_version: &str, object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    if fields.get("kind").and_then(Value::as_str) != Some("Event") {
        return;
    }
    for (core, events) in EVENT_FIELDS {
        let (from, to) = if api_version == "v1" { (events, core) } else { (core, events) };
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
    fields.insert("apiVersion".to_owned(), json!(api_version));
}
