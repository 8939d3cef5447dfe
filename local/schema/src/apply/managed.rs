//! `metadata.managedFields`: who owns which fields.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::set::{FieldSet, SetError};
use super::{Writer, owned};

/// Where an object carries its managers.
pub(super) const POINTER: &str = "/metadata/managedFields";

/// How fields came to be owned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

/// One entry of `metadata.managedFields`.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The manager's name.
    pub manager: String,
    /// Apply or Update.
    pub operation: Operation,
    /// The version of the object that the manager wrote.
    pub api_version: String,
    /// The subresource it wrote through; empty for the object itself.
    pub subresource: String,
    /// When, as RFC 3339.
    pub time: Option<String>,
    /// What it owns.
    pub fields: FieldSet,
}

impl Entry {
    /// Whether both entries belong to the same manager acting in the same way.
    pub(super) fn same_owner(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// The manager as conflict messages name it.
    pub(super) fn describe(&self) -> String {
        let quoted = |text: &str| Value::from(text).to_string();
        let subresource = match self.subresource.as_str() {
            "" => String::new(),
            name => format!(" with subresource {}", quoted(name)),
        };
        let version = match self.operation {
            Operation::Apply => String::new(),
            Operation::Update => format!(" using {}", self.api_version),
        };
        format!("{}{subresource}{version}", quoted(&self.manager))
    }

    fn parse(value: &Value) -> Result<Self, SetError> {
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let operation = match value.get("operation").and_then(Value::as_str) {
            Some("Apply") => Operation::Apply,
            Some("Update") => Operation::Update,
            _ => return Err(SetError::Shape),
        };
        Ok(Self {
            manager: text("manager"),
            operation,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: value.get("time").and_then(Value::as_str).map(str::to_owned),
            fields: value.get("fieldsV1").map_or_else(|| Ok(FieldSet::default()), FieldSet::parse)?,
        })
    }

    pub(super) fn to_value(&self) -> Value {
        let mut entry = Map::new();
        let mut put = |name: &str, text: &str| {
            if !text.is_empty() {
                entry.insert(name.to_owned(), text.into());
            }
        };
        put("manager", &self.manager);
        put("operation", if self.operation == Operation::Apply { "Apply" } else { "Update" });
        put("apiVersion", &self.api_version);
        put("time", self.time.as_deref().unwrap_or_default());
        put("fieldsType", "FieldsV1");
        put("subresource", &self.subresource);
        entry.insert("fieldsV1".to_owned(), self.fields.to_value());
        Value::Object(entry)
    }
}

/// More `Update` entries than this are folded into one.
const MAX_UPDATE_ENTRIES: usize = 10;

/// The owner that the oldest `Update` entries are folded into.
const ANCIENT: &str = "ancient-changes";

/// The entries of a stored object.
pub(super) fn entries(object: &Value) -> Vec<Entry> {
    let list = object.pointer(POINTER).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    list.iter().map(Entry::parse).collect::<Result<_, _>>().unwrap_or_default()
}

/// Removes the managed fields of an object.
pub(super) fn strip(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// Writes `entries` into an object, in Kubernetes' order, without empty ones.
pub(super) fn write(object: &mut Value, entries: &[Entry]) {
    write_values(object, entries.iter().map(Entry::to_value).collect());
}

/// Like [`write`], for entries in their written form.
pub(super) fn write_values(object: &mut Value, mut entries: Vec<Value>) {
    entries.retain_mut(|entry| fields_mut(entry).is_some_and(|fields| !fields.is_empty()));
    fold_ancient(&mut entries);
    entries.sort_by(order);
    strip(object);
    if entries.is_empty() {
        return;
    }
    if let Some(fields) = object.as_object_mut() {
        let metadata = fields.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("managedFields".to_owned(), Value::Array(entries));
        }
    }
}

fn text<'a>(entry: &'a Value, name: &str) -> &'a str {
    entry.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Kubernetes' order of entries: appliers first, then by time and names.
fn order(left: &Value, right: &Value) -> Ordering {
    let by = |name: &str| text(left, name).cmp(text(right, name));
    // "Apply" comes before "Update" by its letters, too.
    ["operation", "time", "manager", "apiVersion", "subresource"]
        .into_iter()
        .fold(Ordering::Equal, |order, name| order.then_with(|| by(name)))
}

/// What an entry owns, in its written form.
pub(super) fn fields_mut(entry: &mut Value) -> Option<&mut Map<String, Value>> {
    entry.get_mut("fieldsV1").and_then(Value::as_object_mut)
}

/// An entry that owns nothing yet.
pub(super) fn new_entry(writer: &Writer<'_>, operation: Operation) -> Entry {
    Entry {
        manager: writer.manager.to_owned(),
        operation,
        api_version: writer.api_version.to_owned(),
        subresource: writer.subresource.to_owned(),
        time: None,
        fields: FieldSet::default(),
    }
}

/// The written entry of what `writer` owns by updates, if it has one: as [`Entry::same_owner`] says.
pub(super) fn position_of_updates(entries: &[Value], writer: &Writer<'_>) -> Option<usize> {
    entries.iter().position(|entry| {
        text(entry, "operation") == "Update"
            && text(entry, "manager") == writer.manager
            && text(entry, "subresource") == writer.subresource
            && text(entry, "apiVersion") == writer.api_version
    })
}

/// Notes that what an entry owns changed at `now`.
pub(super) fn set_time(entry: &mut Value, now: &str) {
    if let Some(entry) = entry.as_object_mut() {
        entry.insert("time".to_owned(), now.into());
    }
}

/// Takes out of a written object what it says about its managers. `kept` is what the stored object says, which needs no
/// second look when it comes back as it was.
pub(super) fn take_given(object: &mut Value, kept: Option<&Value>) -> Given {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return Given::Nothing;
    };
    match metadata.remove("managedFields") {
        Some(Value::Array(list)) if list.is_empty() => Given::Nothing,
        Some(given) if kept == Some(&given) => match given {
            Value::Array(list) => Given::Entries(list),
            _ => Given::Nothing,
        },
        Some(Value::Array(list)) => match list.as_slice() {
            [Value::Object(only)] if only.is_empty() => Given::Reset,
            list => match list.iter().map(Entry::parse).collect::<Result<Vec<_>, _>>() {
                Ok(entries) => Given::Entries(entries.iter().map(Entry::to_value).collect()),
                Err(_) => Given::Nothing,
            },
        },
        _ => Given::Nothing,
    }
}

/// What a written object says about its managers.
pub(super) enum Given {
    /// Nothing, or nothing readable.
    Nothing,
    /// `[{}]`: forget all managers.
    Reset,
    /// Entries in their written form.
    Entries(Vec<Value>),
}

/// Keeps the number of `Update` entries bounded by folding the oldest into one owner.
fn fold_ancient(entries: &mut Vec<Value>) {
    loop {
        let updates = entries.iter().enumerate().filter(|(_, entry)| text(entry, "operation") == "Update");
        if updates.clone().count() <= MAX_UPDATE_ENTRIES {
            return;
        }
        let oldest = updates
            .filter(|(_, entry)| text(entry, "manager") != ANCIENT)
            .min_by(|(_, left), (_, right)| text(left, "time").cmp(text(right, "time")))
            .map(|(position, _)| position);
        let Some(position) = oldest else { return };
        let old = entries.remove(position);
        let home = entries.iter_mut().find(|entry| {
            text(entry, "manager") == ANCIENT && text(entry, "apiVersion") == text(&old, "apiVersion")
        });
        match home {
            Some(home) => {
                let owned = FieldSet::parse(&old["fieldsV1"]).unwrap_or_default();
                if let Some(fields) = fields_mut(home) {
                    owned::give(fields, &owned);
                }
                if text(home, "time") < text(&old, "time") {
                    set_time(home, text(&old, "time"));
                }
            }
            None => entries.extend(Entry::parse(&old).ok().map(|old| {
                Entry { manager: ANCIENT.to_owned(), subresource: String::new(), ..old }.to_value()
            })),
        }
    }
}
