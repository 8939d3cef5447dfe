//! `metadata.managedFields`: who owns which fields.

use serde_json::{Map, Value};

use super::set::{FieldSet, SetError};

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

    fn to_value(&self) -> Value {
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

/// What an object says about its managers.
pub(super) enum Given {
    /// Nothing, or nothing readable.
    Nothing,
    /// `[{}]`: forget all managers.
    Reset,
    /// Entries.
    Entries(Vec<Entry>),
}

/// Reads the managed fields of an object.
pub(super) fn read(object: &Value) -> Given {
    let Some(list) = object.pointer("/metadata/managedFields").and_then(Value::as_array) else {
        return Given::Nothing;
    };
    match list.as_slice() {
        [] => Given::Nothing,
        [Value::Object(only)] if only.is_empty() => Given::Reset,
        list => match list.iter().map(Entry::parse).collect() {
            Ok(entries) => Given::Entries(entries),
            Err(_) => Given::Nothing,
        },
    }
}

/// The entries of a stored object.
pub(super) fn entries(object: &Value) -> Vec<Entry> {
    match read(object) {
        Given::Entries(entries) => entries,
        Given::Nothing | Given::Reset => Vec::new(),
    }
}

/// Removes the managed fields of an object.
pub(super) fn strip(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// Writes `entries` into an object, in Kubernetes' order, without empty ones.
pub(super) fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    fold_ancient(&mut entries);
    entries.sort_by(|left, right| {
        let key = |entry: &Entry| {
            (
                entry.operation,
                entry.time.clone(),
                entry.manager.clone(),
                entry.api_version.clone(),
                entry.subresource.clone(),
            )
        };
        key(left).cmp(&key(right))
    });
    strip(object);
    if entries.is_empty() {
        return;
    }
    if let Some(fields) = object.as_object_mut() {
        let metadata = fields.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        if let Some(metadata) = metadata.as_object_mut() {
            let list = entries.iter().map(Entry::to_value).collect();
            metadata.insert("managedFields".to_owned(), Value::Array(list));
        }
    }
}

/// Keeps the number of `Update` entries bounded by folding the oldest into one owner.
fn fold_ancient(entries: &mut Vec<Entry>) {
    loop {
        let updates = entries.iter().enumerate().filter(|(_, entry)| entry.operation == Operation::Update);
        if updates.clone().count() <= MAX_UPDATE_ENTRIES {
            return;
        }
        let oldest = updates
            .filter(|(_, entry)| entry.manager != ANCIENT)
            .min_by(|(_, left), (_, right)| left.time.cmp(&right.time))
            .map(|(position, _)| position);
        let Some(position) = oldest else { return };
        let old = entries.remove(position);
        let home =
            entries.iter_mut().find(|entry| entry.manager == ANCIENT && entry.api_version == old.api_version);
        match home {
            Some(home) => {
                home.fields = home.fields.union(&old.fields);
                home.time = home.time.clone().max(old.time);
            }
            None => entries.push(Entry { manager: ANCIENT.to_owned(), subresource: String::new(), ..old }),
        }
    }
}
