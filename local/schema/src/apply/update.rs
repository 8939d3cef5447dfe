//! Who owns what after an ordinary write.

use serde_json::Value;

use super::compare::compare_write;
use super::managed::{self, Operation};
use super::{FieldSet, Writer, never_owned, owned};
use crate::model::SchemaRef;

/// Records in `new` who owns what after an ordinary write: `writer` owns what differs from `old`. Without `old`
/// the object is new. An object whose managers are unknown stays without, until something is applied to it;
/// `managedFields: [{}]` in `new` forgets them.
pub fn update_managed_fields(
    schema: &SchemaRef,
    old: Option<&Value>,
    new: &mut Value,
    writer: &Writer<'_>,
    reset: &FieldSet,
) {
    let kept = old.and_then(|old| old.pointer(managed::POINTER)).filter(|list| is_filled(list));
    let mut entries = match managed::take_given(new, kept) {
        managed::Given::Reset => return,
        managed::Given::Entries(entries) => entries,
        managed::Given::Nothing => kept.and_then(Value::as_array).cloned().unwrap_or_default(),
    };
    if entries.is_empty() && old.is_some() {
        return;
    }
    let comparison = compare_write(schema, old, new).without(reset);
    let changed = comparison.modified.union(&comparison.added);
    let mut own = match managed::position_of_updates(&entries, writer) {
        Some(position) => entries.remove(position),
        None => managed::new_entry(writer, Operation::Update).to_value(),
    };
    for fields in entries.iter_mut().filter_map(managed::fields_mut) {
        owned::take(fields, &changed);
        owned::take(fields, &comparison.removed);
    }
    let differs = managed::fields_mut(&mut own).is_some_and(|fields| {
        let lost = owned::take(fields, &comparison.removed);
        owned::give(fields, &changed.difference(never_owned())) || lost
    });
    if differs {
        managed::set_time(&mut own, writer.now);
    }
    entries.push(own);
    managed::write_values(new, entries);
}

fn is_filled(list: &Value) -> bool {
    list.as_array().is_some_and(|list| !list.is_empty())
}
