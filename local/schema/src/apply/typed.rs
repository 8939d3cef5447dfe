//! Objects seen through their schema: which paths they have, how two differ, merge and shrink.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::set::{FieldSet, PathElement};
use crate::catalogue::Catalogue;
use crate::model::{ListKind, Schema, SchemaRef};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// A schema at one place of an object.
#[derive(Debug, Clone)]
pub(super) struct Place {
    schema: Arc<Schema>,
    resource: bool,
}

impl Place {
    pub(super) fn root(schema: &SchemaRef) -> Self {
        Self { schema: Catalogue::get().resolve(schema), resource: true }
    }

    fn at(reference: Option<&SchemaRef>) -> Self {
        let schema = reference.map_or_else(Arc::default, |reference| Catalogue::get().resolve(reference));
        let resource = schema.embedded_resource;
        Self { schema, resource }
    }

    /// Whether the schema names this field.
    pub(super) fn names(&self, element: &PathElement) -> bool {
        let PathElement::Field(name) = element else { return false };
        self.schema.properties.contains_key(name)
            || self.resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata")
    }

    pub(super) fn field(&self, name: &str) -> Self {
        if self.resource && name == "metadata" {
            return Self::at(Some(&SchemaRef::Definition(OBJECT_META.into())));
        }
        Self::at(self.schema.properties.get(name).or(self.schema.additional.as_ref()))
    }

    pub(super) fn item(&self) -> Self {
        Self::at(self.schema.items.as_ref())
    }

    pub(super) fn below(&self, element: &PathElement) -> Self {
        match element {
            PathElement::Field(name) => self.field(name),
            _ => self.item(),
        }
    }

    pub(super) fn granular_map<'a>(&self, value: Option<&'a Value>) -> Option<&'a Map<String, Value>> {
        value.and_then(Value::as_object).filter(|_| !self.schema.atomic_map)
    }

    pub(super) fn granular_list<'a>(&self, value: Option<&'a Value>) -> Option<&'a Vec<Value>> {
        value.and_then(Value::as_array).filter(|_| self.schema.list != ListKind::Atomic)
    }

    /// What tells an item of this list from the others.
    fn element(&self, items: &Self, position: usize, item: &Value) -> PathElement {
        match &self.schema.list {
            ListKind::Set => PathElement::Value(item.to_string()),
            ListKind::Map(keys) => {
                let mut fields = Map::new();
                for key in keys {
                    if let Some(value) = item.get(key).filter(|value| !value.is_null()) {
                        fields.insert(key.clone(), value.clone());
                    } else if let Some(value) = items.field(key).schema.default.clone() {
                        fields.insert(key.clone(), value);
                    }
                }
                if fields.is_empty() {
                    return PathElement::Index(position);
                }
                PathElement::Key(Value::Object(fields).to_string())
            }
            ListKind::Atomic => PathElement::Index(position),
        }
    }

    pub(super) fn index<'a>(&self, list: &'a [Value]) -> Vec<(PathElement, &'a Value)> {
        let items = self.item();
        list.iter().enumerate().map(|(position, item)| (self.element(&items, position, item), item)).collect()
    }
}

/// The paths that `value` has: what an applier of it owns.
pub(super) fn field_set(place: &Place, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    collect(place, value, &mut Vec::new(), &mut set);
    set
}

fn collect(place: &Place, value: &Value, path: &mut Vec<PathElement>, set: &mut FieldSet) {
    if let Some(fields) = place.granular_map(Some(value)) {
        for (name, value) in fields {
            let element = PathElement::Field(name.clone());
            let named = place.names(&element);
            path.push(element);
            collect(&place.field(name), value, path, set);
            if value.is_null() || value.as_object().is_some_and(Map::is_empty) || !named {
                set.insert(path);
            }
            path.pop();
        }
    } else if let Some(list) = place.granular_list(Some(value)) {
        let items = place.item();
        for (element, item) in place.index(list) {
            path.push(element);
            collect(&items, item, path, set);
            set.insert(path);
            path.pop();
        }
    } else {
        set.insert(path);
    }
}

/// `live` with everything that `config` says.
pub(super) fn merge(place: &Place, live: &Value, config: &Value) -> Value {
    if let (Some(live), Some(config)) = (place.granular_map(Some(live)), place.granular_map(Some(config))) {
        let mut merged = live.clone();
        for (name, value) in config {
            let value = match live.get(name) {
                Some(live) => merge(&place.field(name), live, value),
                None => value.clone(),
            };
            merged.insert(name.clone(), value);
        }
        return Value::Object(merged);
    }
    if let (Some(live), Some(config)) = (place.granular_list(Some(live)), place.granular_list(Some(config))) {
        return merge_lists(place, live, config);
    }
    config.clone()
}

/// Merges lists: entries of `config` keep their order, entries only `live` has stay near their neighbours.
fn merge_lists(place: &Place, live: &[Value], config: &[Value]) -> Value {
    let (live, config) = (place.index(live), place.index(config));
    let items = place.item();
    let old: BTreeMap<&PathElement, &Value> = live.iter().map(|(element, item)| (element, *item)).collect();
    let wanted: BTreeMap<&PathElement, usize> =
        config.iter().enumerate().map(|(position, (element, _))| (element, position)).collect();
    let mut merged = Vec::with_capacity(live.len().max(config.len()));
    let mut next = 0;
    let mut take_until = |end: usize, merged: &mut Vec<Value>| {
        while next < end {
            let (element, item) = &config[next];
            merged.push(old.get(element).map_or_else(|| (*item).clone(), |live| merge(&items, live, item)));
            next += 1;
        }
    };
    for (element, item) in &live {
        match wanted.get(element) {
            None => merged.push((*item).clone()),
            Some(position) => take_until(position + 1, &mut merged),
        }
    }
    take_until(config.len(), &mut merged);
    Value::Array(merged)
}

/// `value` without the paths in `removed`. `None`: nothing is left.
pub(super) fn remove(place: &Place, value: &Value, removed: &FieldSet) -> Option<Value> {
    if let Some(fields) = place.granular_map(Some(value)) {
        let mut kept = Map::new();
        for (name, value) in fields {
            let element = PathElement::Field(name.clone());
            if removed.has(&element) {
                continue;
            }
            let rest = match removed.below(&element) {
                None => Some(value.clone()),
                Some(below) => remove(&place.field(name), value, below),
            };
            if let Some(rest) = rest {
                kept.insert(name.clone(), rest);
            }
        }
        return (!kept.is_empty() || fields.is_empty()).then_some(Value::Object(kept));
    }
    if let Some(list) = place.granular_list(Some(value)) {
        let items = place.item();
        let kept: Vec<Value> = place
            .index(list)
            .into_iter()
            .filter(|(element, _)| !removed.has(element))
            .filter_map(|(element, item)| match removed.below(&element) {
                None => Some(item.clone()),
                Some(below) => remove(&items, item, below),
            })
            .collect();
        return (!kept.is_empty() || list.is_empty()).then_some(Value::Array(kept));
    }
    Some(value.clone())
}

/// The set with every named field that leads to one of its paths.
pub(super) fn with_named_fields(place: &Place, set: &FieldSet) -> FieldSet {
    set.with_named(place, &Place::names, &Place::below)
}

/// The first list of `value` that has an entry twice, as `path: duplicate entries for key [...]`.
pub(super) fn repeated_entry(place: &Place, value: &Value, path: &str) -> Option<String> {
    if let Some(fields) = place.granular_map(Some(value)) {
        return fields
            .iter()
            .find_map(|(name, value)| repeated_entry(&place.field(name), value, &format!("{path}.{name}")));
    }
    let list = place.granular_list(Some(value))?;
    let entries = place.index(list);
    let mut seen = std::collections::BTreeSet::new();
    if let Some((element, _)) = entries.iter().find(|(element, _)| !seen.insert(element)) {
        return Some(format!("{path}: duplicate entries for key {element}"));
    }
    let items = place.item();
    entries.iter().find_map(|(element, item)| repeated_entry(&items, item, &format!("{path}{element}")))
}
