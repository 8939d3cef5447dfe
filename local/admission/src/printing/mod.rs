//! What `kubectl get` prints of each kind: column definitions and rows of the server-side `Table`.

mod custom;
mod duration;
mod jsonpath;
mod network;
mod pod;
mod storage;
mod various;
mod workload;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

pub use custom::CustomColumns;
pub use duration::human;
pub use jsonpath::{JsonPath, JsonPathError};

use crate::json::{at, list, text};
use crate::selectors::LabelSelector;
use crate::{convert, group};

/// One column of a table; it serializes to an entry of `columnDefinitions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    /// The heading.
    pub name: &'static str,
    /// The OpenAPI type of its cells: `string`, `integer`, `boolean` or `date`.
    #[serde(rename = "type")]
    pub cell_type: &'static str,
    /// `name` for the column that identifies the object, else empty.
    pub format: &'static str,
    /// What it shows.
    pub description: &'static str,
    /// 0 for columns always shown, more for those of `-o wide`.
    pub priority: i32,
}

const fn text_column(name: &'static str, description: &'static str) -> Column {
    Column { name, cell_type: "string", format: "", description, priority: 0 }
}

const fn integer_column(name: &'static str, description: &'static str) -> Column {
    Column { cell_type: "integer", ..text_column(name, description) }
}

const fn wide_column(name: &'static str, description: &'static str) -> Column {
    Column { priority: 1, ..text_column(name, description) }
}

const NAME: Column =
    Column { format: "name", ..text_column("Name", "The object's name, unique in its namespace.") };
const AGE: Column = text_column("Age", "How long ago the object was created.");
const CREATED_AT: Column =
    Column { cell_type: "date", ..text_column("Created At", "When the object was created.") };
const CONTAINERS: Column = wide_column("Containers", "The names of the template's containers.");
const IMAGES: Column = wide_column("Images", "The images of the template's containers.");
const SELECTOR: Column = wide_column("Selector", "The labels that select the object's pods.");

/// The cells of one object.
type Row = fn(&Value, Timestamp) -> Vec<Value>;

/// How one kind is printed.
struct Printed {
    group: &'static str,
    kind: &'static str,
    columns: &'static [Column],
    row: Row,
}

/// Every kind that prints more than its name and age.
const KINDS: [&[Printed]; 5] = [pod::KINDS, workload::KINDS, network::KINDS, storage::KINDS, various::KINDS];

const PLAIN: &[Column] = &[NAME, CREATED_AT];

fn printed(api_version: &str, kind: &str) -> Option<&'static Printed> {
    let group = match group(api_version) {
        // All faces of an object are printed alike, see `convert`.
        "events.k8s.io" => "",
        group => group,
    };
    KINDS.into_iter().flatten().find(|printed| printed.group == group && printed.kind == kind)
}

/// The columns of a built-in kind.
pub fn columns(api_version: &str, kind: &str) -> &'static [Column] {
    printed(api_version, kind).map_or(PLAIN, |printed| printed.columns)
}

/// The cells of an object of a built-in kind, one for each of [`columns`].
pub fn row(api_version: &str, kind: &str, object: &Value, now: Timestamp) -> Vec<Value> {
    match printed(api_version, kind) {
        Some(printed) if convert::is_view(api_version) => {
            let mut stored = object.clone();
            convert::to_stored(api_version, &mut stored);
            (printed.row)(&stored, now)
        }
        Some(printed) => (printed.row)(object, now),
        None => created_at(object, now),
    }
}

fn created_at(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![name(object), at(object, &["metadata", "creationTimestamp"]).clone()]
}

fn name(object: &Value) -> Value {
    json!(text(at(object, &["metadata"]), "name"))
}

fn age(object: &Value, now: Timestamp) -> Value {
    json!(duration::since(at(object, &["metadata", "creationTimestamp"]), now))
}

/// A number that counts, 0 when missing.
fn count(value: &Value) -> Value {
    json!(value.as_i64().unwrap_or_default())
}

/// A text, or `<none>`.
fn or_none(value: &str) -> &str {
    if value.is_empty() { "<none>" } else { value }
}

/// The containers, images and selector of a workload, for `-o wide`.
fn template_cells(object: &Value) -> [Value; 3] {
    let spec = at(object, &["spec"]);
    let containers = list(at(spec, &["template", "spec"]), "containers");
    let joined =
        |key| json!(containers.iter().map(|container| text(container, key)).collect::<Vec<_>>().join(","));
    [joined("name"), joined("image"), selector(at(spec, &["selector"]))]
}

/// A `{matchLabels, matchExpressions}` object as text.
fn selector(value: &Value) -> Value {
    match LabelSelector::from_json(value) {
        Ok(selector) if selector.requirements().is_empty() => json!("<none>"),
        Ok(selector) => json!(selector.to_string()),
        Err(_) => json!("<error>"),
    }
}

/// Plain labels as text, for example a node selector.
fn labels(value: &Value) -> Value {
    let text = LabelSelector::from_labels(value).to_string();
    json!(or_none(&text))
}
