//! How two objects differ, seen through their schema.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::set::{FieldSet, PathElement};
use super::typed::Place;
use crate::model::SchemaRef;

/// How a new object differs from an old one.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

impl Comparison {
    /// Without the paths in `ignored` and below.
    pub(super) fn without(self, ignored: &FieldSet) -> Self {
        Self {
            added: self.added.recursive_difference(ignored),
            modified: self.modified.recursive_difference(ignored),
            removed: self.removed.recursive_difference(ignored),
        }
    }
}

pub(super) fn compare(place: &Place, old: &Value, new: &Value) -> Comparison {
    let mut comparison = Comparison::default();
    compare_at(place, Some(old), Some(new), Structs::None, &mut Vec::new(), &mut comparison);
    comparison
}

/// How an object differs from what it was before a write, or from nothing. `managedFields` do not count.
pub(super) fn compare_write(schema: &SchemaRef, old: Option<&Value>, new: &Value) -> Comparison {
    let structs = match schema {
        SchemaRef::Definition(_) => Structs::BuiltIn,
        SchemaRef::Inline(_) => Structs::Custom,
    };
    let mut comparison = Comparison::default();
    let old = old.unwrap_or_else(|| &NOTHING);
    compare_at(&Place::root(schema), Some(old), Some(new), structs, &mut Vec::new(), &mut comparison);
    comparison
}

static NOTHING: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));

/// Fields of built-in kinds that Kubernetes holds as plain structs: they are always there, so nobody adds them.
const STRUCT_FIELDS: [&str; 7] =
    ["metadata", "spec", "status", "template", "jobTemplate", "strategy", "updateStrategy"];

/// What a comparison knows of the fields that it has come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Structs {
    /// Nothing.
    None,
    /// All are structs of a built-in kind.
    BuiltIn,
    /// None: this is a written custom object.
    Custom,
}

impl Structs {
    /// The old value of a field whose object lacks it.
    fn absent(self, name: &str, new: Option<&Value>) -> Option<&'static Value> {
        if self != Self::BuiltIn {
            return None;
        }
        if STRUCT_FIELDS.contains(&name) {
            return new.filter(|new| new.is_object()).map(|_| &*NOTHING);
        }
        // The one list with keys that Kubernetes writes as null instead of leaving it out.
        (name == "containers" && new.is_some()).then_some(&Value::Null)
    }

    fn below(self, name: &str) -> Self {
        match self {
            Self::BuiltIn if STRUCT_FIELDS.contains(&name) => self,
            Self::Custom if name == "metadata" => self,
            _ => Self::None,
        }
    }
}

fn compare_at(
    place: &Place,
    old: Option<&Value>,
    new: Option<&Value>,
    structs: Structs,
    path: &mut Vec<PathElement>,
    found: &mut Comparison,
) {
    if old == new {
        return;
    }
    let leaf = |found: &mut Comparison, path: &[PathElement]| match (old, new) {
        (None, _) => found.added.insert(path),
        (_, None) => found.removed.insert(path),
        _ => found.modified.insert(path),
    };
    let (old_map, new_map) = (place.granular_map(old), place.granular_map(new));
    let (old_list, new_list) = (place.granular_list(old), place.granular_list(new));
    let empty = |value: Option<&Value>| match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    };
    if (old_map.is_none() && new_map.is_none() && old_list.is_none() && new_list.is_none())
        || empty(old) && empty(new)
    {
        leaf(found, path);
        return;
    }
    if old_map.is_some() || new_map.is_some() {
        let mut names: Vec<&String> = old_map.into_iter().chain(new_map).flat_map(Map::keys).collect();
        names.sort();
        names.dedup();
        let written = structs != Structs::None;
        for name in names {
            let new = new_map.and_then(|fields| fields.get(name));
            let old = old_map.and_then(|fields| fields.get(name)).or_else(|| structs.absent(name, new));
            if old == new || written && is_managed_fields(path, name) {
                continue;
            }
            path.push(PathElement::Field(name.clone()));
            compare_at(&place.field(name), old, new, structs.below(name), path, found);
            path.pop();
        }
    }
    if old_list.is_some() || new_list.is_some() {
        let mut entries: BTreeMap<PathElement, (Option<&Value>, Option<&Value>)> = BTreeMap::new();
        for (element, item) in old_list.map(|list| place.index(list)).unwrap_or_default() {
            entries.entry(element).or_default().0 = Some(item);
        }
        for (element, item) in new_list.map(|list| place.index(list)).unwrap_or_default() {
            entries.entry(element).or_default().1 = Some(item);
        }
        let items = place.item();
        for (element, (old, new)) in entries {
            path.push(element);
            compare_at(&items, old, new, Structs::None, path, found);
            path.pop();
        }
    }
    let is_leaf = |value: Option<&Value>| {
        value.is_some_and(|value| !value.is_null() && !value.is_object() && !value.is_array())
    };
    if old.is_none() || new.is_none() || is_leaf(old) || is_leaf(new) {
        leaf(found, path);
    }
}

fn is_managed_fields(path: &[PathElement], name: &str) -> bool {
    name == "managedFields" && matches!(path, [PathElement::Field(parent)] if parent == "metadata")
}
