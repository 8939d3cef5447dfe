//! Reading and writing `metadata` of a generic object.

use jiff::Timestamp;
use rand::RngExt as _;
use serde_json::{Map, Value};

/// Letters of generated names: no vowels, so that no words appear.
const NAME_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Longest generated name; a longer base is cut.
const LONGEST_GENERATED: usize = 63;
const SUFFIX: usize = 5;

/// The value at a chain of keys; `Value::Null` when any of them is missing.
pub(crate) fn at<'a>(value: &'a Value, keys: &[&str]) -> &'a Value {
    keys.iter().fold(value, |value, key| value.get(key).unwrap_or(&Value::Null))
}

/// The text at a chain of keys, empty when missing.
pub(crate) fn text<'a>(value: &'a Value, keys: &[&str]) -> &'a str {
    at(value, keys).as_str().unwrap_or_default()
}

/// A metadata text field, empty when missing.
pub(crate) fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    text(object, &["metadata", field])
}

/// The object's metadata, made when missing (a scalar in its place is replaced).
pub(crate) fn meta_mut(object: &mut Value) -> &mut Map<String, Value> {
    object_at(object, "metadata")
}

/// The object under a key, made when missing (a scalar in its place is replaced).
pub(crate) fn object_at<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    as_map(as_map(value).entry(key.to_owned()).or_insert(Value::Null))
}

/// The value as a map; anything else is replaced by an empty one.
fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("made a map above"),
    }
}

/// Puts a value under a chain of keys, or removes it when the value is none.
pub(crate) fn set_at(value: &mut Value, keys: &[&str], new: Option<Value>) {
    let Some((last, path)) = keys.split_last() else { return };
    let mut place = value;
    for key in path {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Some(fields) = place.as_object_mut() else { return };
        if new.is_none() && !fields.contains_key(*key) {
            return;
        }
        place = fields.entry((*key).to_owned()).or_insert_with(|| Value::Object(Map::new()));
    }
    if new.is_some() && !place.is_object() {
        *place = Value::Object(Map::new());
    }
    if let Some(fields) = place.as_object_mut() {
        match new {
            Some(new) => fields.insert((*last).to_owned(), new),
            None => fields.remove(*last),
        };
    }
}

/// The finalizers in order.
pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    let list = at(object, &["metadata", "finalizers"]).as_array();
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Whether deletion was asked for.
pub(crate) fn is_deleting(object: &Value) -> bool {
    !at(object, &["metadata", "deletionTimestamp"]).is_null()
}

/// `metadata.generation`, 0 when absent.
pub(crate) fn generation(object: &Value) -> i64 {
    at(object, &["metadata", "generation"]).as_i64().unwrap_or(0)
}

/// A time as Kubernetes writes it: UTC in whole seconds.
pub(crate) fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Now, as Kubernetes writes it.
pub(crate) fn now() -> String {
    format_time(Timestamp::now())
}

/// A name from a `generateName` base.
pub(crate) fn generated_name(base: &str) -> String {
    let mut end = base.len().min(LONGEST_GENERATED - SUFFIX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], random_letters(SUFFIX))
}

/// Random letters as generated names have them.
pub(crate) fn random_letters(count: usize) -> String {
    let mut random = rand::rng();
    (0..count).map(|_| char::from(NAME_LETTERS[random.random_range(0..NAME_LETTERS.len())])).collect()
}

/// A fresh uid.
pub(crate) fn new_uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn generated_names_keep_to_sixty_three_letters() {
        assert_eq!(generated_name("gen-").len(), 9);
        assert_eq!(generated_name(&"a".repeat(80)).len(), 63);
    }

    #[test]
    fn values_are_set_and_removed_by_path() {
        let mut object = json!({ "spec": "scalar" });
        set_at(&mut object, &["spec", "a", "b"], Some(json!(1)));
        assert_eq!(object, json!({ "spec": { "a": { "b": 1 } } }));
        set_at(&mut object, &["spec", "x", "y"], None);
        set_at(&mut object, &["spec", "a", "b"], None);
        assert_eq!(object, json!({ "spec": { "a": {} } }));
    }
}
