//! Strategic merge patch: a merge patch in which lists of objects merge by a key that the kind's schema names.
//!
//! Directives: `$patch: replace|delete` in an object or list item, `$retainKeys`, `$deleteFromPrimitiveList/FIELD`
//! and `$setElementOrder/FIELD`. Results, and the order of list items in them, are those of Kubernetes.

mod order;

use serde_json::{Map, Value};

use crate::catalogue::Catalogue;
use crate::model::{Schema, SchemaRef};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// Values in a patch may be nested this deep.
const MAX_DEPTH: usize = 200;

/// Why a strategic merge patch cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StrategicError {
    /// The patch is not an object.
    #[error(
        "error decoding patch: json: cannot unmarshal {0} into Go value of type map[string]interface {{}}"
    )]
    NotAnObject(&'static str),
    /// `$retainKeys` is no list of names, or leaves out a field of its own patch.
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    /// `$deleteFromPrimitiveList` holds no list of scalars.
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    /// `$setElementOrder` holds no list, or contradicts the list that it orders.
    #[error("invalid patch format of setElementOrder list")]
    SetElementOrder,
    /// The patch is nested too deep.
    #[error("invalid JSON document")]
    TooDeep,
    /// The value of a `$patch` directive is unknown.
    #[error("unknown patch type: {0} in map: {1}")]
    PatchType(String, String),
    /// A list item lacks the key by which items are told apart.
    #[error("map: {0} does not contain declared merge key: {1}")]
    NoMergeKey(String, String),
    /// A list that is merged holds lists.
    #[error("lists of lists are not supported")]
    ListOfLists,
    /// A list that is merged holds objects as well as scalars.
    #[error("list element types are not identical")]
    MixedList,
    /// `$patch: merge` in a list.
    #[error("merging lists cannot yet be specified in the patch")]
    MergeDirective,
    /// A list of objects is to be merged and the schema names no key.
    #[error("cannot merge lists without merge key for {0}")]
    NoDeclaredKey(String),
}

impl StrategicError {
    /// The HTTP status of the answer: 400 for a patch in the wrong form, 422 for one that does not fit, 500 for
    /// what Kubernetes takes for its own mistake.
    pub fn code(&self) -> u16 {
        match self {
            Self::NotAnObject(_)
            | Self::RetainKeys
            | Self::PrimitiveList
            | Self::SetElementOrder
            | Self::TooDeep => 400,
            Self::ListOfLists | Self::PatchType(..) | Self::NoMergeKey(..) => 422,
            Self::MixedList | Self::MergeDirective | Self::NoDeclaredKey(_) => 500,
        }
    }
}

/// Applies `patch` to `object`, a built-in kind with this schema. On error `object` is unchanged.
pub fn apply_strategic_patch(
    schema: &SchemaRef,
    object: &mut Value,
    patch: &Value,
) -> Result<(), StrategicError> {
    let patch = match patch {
        Value::Object(patch) => patch,
        Value::Null => return Ok(()),
        Value::Array(_) => return Err(StrategicError::NotAnObject("array")),
        Value::String(_) => return Err(StrategicError::NotAnObject("string")),
        Value::Number(_) => return Err(StrategicError::NotAnObject("number")),
        Value::Bool(_) => return Err(StrategicError::NotAnObject("bool")),
    };
    let merger = Merger { catalogue: Catalogue::get() };
    let schema = merger.catalogue.resolve(schema);
    let original = object.as_object().cloned().unwrap_or_default();
    *object = Value::Object(merger.object(&schema, original, patch, 0)?);
    Ok(())
}

struct Merger {
    catalogue: &'static Catalogue,
}

type Object = Map<String, Value>;
type List = Vec<Value>;

impl Merger {
    fn object(
        &self,
        schema: &Schema,
        mut original: Object,
        patch: &Object,
        depth: usize,
    ) -> Result<Object, StrategicError> {
        if depth > MAX_DEPTH {
            return Err(StrategicError::TooDeep);
        }
        if let Some(directive) = patch.get(PATCH) {
            return match directive.as_str() {
                Some("replace") => Ok(without_directives(patch)),
                Some("delete") => Ok(Object::new()),
                _ => Err(bad_patch_type(directive, patch)),
            };
        }
        if let Some(names) = patch.get(RETAIN_KEYS) {
            retain_keys(&mut original, patch, names)?;
        }
        for (name, value) in patch {
            if name == RETAIN_KEYS {
                continue;
            }
            if let Some(name) = name.strip_prefix(SET_ORDER) {
                self.ordered_list(schema, &mut original, patch, name, value, depth)?;
            } else if let Some(name) = name.strip_prefix(DELETE_FROM_LIST) {
                delete_from_list(&mut original, name, value)?;
            } else if !patch.contains_key(&format!("{SET_ORDER}{name}")) {
                self.field(schema, &mut original, name, value, depth)?;
            }
        }
        Ok(original)
    }

    /// Merges one ordinary field.
    fn field(
        &self,
        schema: &Schema,
        original: &mut Object,
        name: &str,
        value: &Value,
        depth: usize,
    ) -> Result<(), StrategicError> {
        if value.is_null() {
            original.remove(name);
            return Ok(());
        }
        let field = self.field_schema(schema, name);
        let replaces = field.patch_strategy.iter().any(|strategy| strategy == "replace");
        let merged = match (original.remove(name), value) {
            (Some(Value::Object(before)), Value::Object(patch)) if !replaces => {
                Value::Object(self.object(&field, before, patch, depth + 1)?)
            }
            (Some(Value::Array(before)), Value::Array(patch)) if merges(&field) => {
                Value::Array(self.list(&field, name, before, patch, depth + 1)?)
            }
            (_, other) => match clean(other, depth)? {
                Some(value) => value,
                None => return Ok(()),
            },
        };
        original.insert(name.to_owned(), merged);
        Ok(())
    }

    /// Merges the list `name` and puts its items in the order that `$setElementOrder` wants.
    fn ordered_list(
        &self,
        schema: &Schema,
        original: &mut Object,
        patch: &Object,
        name: &str,
        order: &Value,
        depth: usize,
    ) -> Result<(), StrategicError> {
        let order = order.as_array().ok_or(StrategicError::SetElementOrder)?;
        let field = self.field_schema(schema, name);
        let key = field.patch_merge_key.as_deref();
        let as_list = |value: &Value| value.as_array().cloned().ok_or(StrategicError::SetElementOrder);
        let before = original.get(name).map(as_list).transpose()?;
        let change = match patch.get(name) {
            // A list that the patch removes has no order.
            Some(Value::Null) => {
                original.remove(name);
                return Ok(());
            }
            other => other.map(as_list).transpose()?,
        };
        if let Some(change) = &change {
            order::agrees(change, order, key)?;
        }
        let merged = match (&before, change) {
            (None, None) => return Ok(()),
            (Some(before), None) => before.clone(),
            (Some(before), Some(change)) if merges(&field) => {
                self.list(&field, name, before.clone(), &change, depth + 1)?
            }
            (_, Some(change)) => clean_list(&change, depth)?,
        };
        let sorted = order::arrange(merged, order, &before.unwrap_or_default(), key);
        original.insert(name.to_owned(), Value::Array(sorted));
        Ok(())
    }

    fn list(
        &self,
        field: &Schema,
        name: &str,
        before: List,
        patch: &[Value],
        depth: usize,
    ) -> Result<List, StrategicError> {
        let items = before.iter().chain(patch);
        if items.clone().any(Value::is_array) {
            return Err(StrategicError::ListOfLists);
        }
        if !items.clone().any(Value::is_object) {
            let mut merged = List::new();
            for item in items {
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            return Ok(order::arrange(merged, patch, &before, None));
        }
        if !items.clone().all(Value::is_object) {
            return Err(StrategicError::MixedList);
        }
        let key =
            field.patch_merge_key.as_deref().ok_or_else(|| StrategicError::NoDeclaredKey(name.to_owned()))?;
        let item_schema = field.items.as_ref().map(|item| self.catalogue.resolve(item)).unwrap_or_default();
        let mut merged = before.clone();
        let mut ordinary = List::new();
        let mut replace = false;
        for item in patch {
            let Value::Object(entry) = item else { continue };
            let Some(directive) = entry.get(PATCH) else {
                ordinary.push(item.clone());
                continue;
            };
            match directive.as_str() {
                Some("delete") => {
                    let value = merge_value(entry, key)?;
                    merged.retain(|other| other.get(key) != Some(value));
                }
                Some("replace") => replace = true,
                Some("merge") => return Err(StrategicError::MergeDirective),
                _ => return Err(bad_patch_type(directive, entry)),
            }
        }
        if replace {
            return clean_list(&ordinary, depth);
        }
        let remaining = merged.clone();
        for item in &ordinary {
            let Value::Object(entry) = item else { continue };
            let value = merge_value(entry, key)?;
            let found = merged.iter_mut().find(|other| other.get(key) == Some(value));
            match found {
                Some(Value::Object(found)) => {
                    *found = self.object(&item_schema, std::mem::take(found), entry, depth + 1)?;
                }
                _ => merged.extend(clean(item, depth)?),
            }
        }
        Ok(order::arrange(merged, &ordinary, &remaining, Some(key)))
    }

    fn field_schema(&self, schema: &Schema, name: &str) -> std::sync::Arc<Schema> {
        let reference = schema.properties.get(name).or(schema.additional.as_ref());
        reference.map(|reference| self.catalogue.resolve(reference)).unwrap_or_default()
    }
}

fn merges(field: &Schema) -> bool {
    field.patch_strategy.iter().any(|strategy| strategy == "merge")
}

fn merge_value<'a>(entry: &'a Object, key: &str) -> Result<&'a Value, StrategicError> {
    entry
        .get(key)
        .ok_or_else(|| StrategicError::NoMergeKey(Value::Object(entry.clone()).to_string(), key.to_owned()))
}

fn bad_patch_type(directive: &Value, patch: &Object) -> StrategicError {
    let directive = directive.as_str().map_or_else(|| directive.to_string(), str::to_owned);
    StrategicError::PatchType(directive, Value::Object(patch.clone()).to_string())
}

/// Drops the fields of `original` that `$retainKeys` does not name; the patch may not set any of them.
fn retain_keys(original: &mut Object, patch: &Object, names: &Value) -> Result<(), StrategicError> {
    let names: Option<Vec<&str>> =
        names.as_array().and_then(|names| names.iter().map(Value::as_str).collect());
    let names = names.ok_or(StrategicError::RetainKeys)?;
    let is_order = |name: &str| name.starts_with(DELETE_FROM_LIST) || name.starts_with(SET_ORDER);
    for (name, value) in patch {
        if name != RETAIN_KEYS && !value.is_null() && !is_order(name) && !names.contains(&name.as_str()) {
            return Err(StrategicError::RetainKeys);
        }
    }
    original.retain(|name, _| names.contains(&name.as_str()));
    Ok(())
}

fn delete_from_list(original: &mut Object, name: &str, unwanted: &Value) -> Result<(), StrategicError> {
    let unwanted = unwanted.as_array().ok_or(StrategicError::PrimitiveList)?;
    if unwanted.iter().any(|item| item.is_object() || item.is_array()) {
        return Err(StrategicError::PrimitiveList);
    }
    if let Some(Value::Array(items)) = original.get_mut(name) {
        items.retain(|item| !unwanted.contains(item));
    }
    Ok(())
}

fn is_directive(name: &str) -> bool {
    name == PATCH || name == RETAIN_KEYS || name.starts_with(DELETE_FROM_LIST) || name.starts_with(SET_ORDER)
}

/// An object that replaces another as it is: only the directive at its top goes.
fn without_directives(patch: &Object) -> Object {
    patch
        .iter()
        .filter(|(name, _)| *name != PATCH)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// A value that is new in the object: without directives, nulls and items to delete. Nothing when it is itself
/// to be deleted.
fn clean(value: &Value, depth: usize) -> Result<Option<Value>, StrategicError> {
    if depth > MAX_DEPTH {
        return Err(StrategicError::TooDeep);
    }
    Ok(match value {
        Value::Object(object) if object.get(PATCH).is_some_and(|directive| directive == "delete") => None,
        Value::Object(object) => {
            let mut result = Object::new();
            for (name, value) in object.iter().filter(|(name, value)| !value.is_null() && !is_directive(name))
            {
                if let Some(value) = clean(value, depth + 1)? {
                    result.insert(name.clone(), value);
                }
            }
            Some(Value::Object(result))
        }
        Value::Array(items) => Some(Value::Array(clean_list(items, depth + 1)?)),
        scalar => Some(scalar.clone()),
    })
}

fn clean_list(items: &[Value], depth: usize) -> Result<List, StrategicError> {
    // An item that is only a directive (`{"$patch": "replace"}`) speaks of the list and is no item.
    let speaks_of_the_list =
        |item: &&Value| item.as_object().is_some_and(|item| item.len() == 1 && item.contains_key(PATCH));
    items
        .iter()
        .filter(|item| !speaks_of_the_list(item))
        .filter_map(|item| clean(item, depth).transpose())
        .collect()
}

#[cfg(test)]
mod tests;
