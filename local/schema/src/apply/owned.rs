//! Small changes to a large `fieldsV1`, in place: their cost is that of the change, not of what is owned.
//!
//! Both functions expect the one form that [`FieldSet::to_value`] writes, and keep it.

use serde_json::{Map, Value};

use super::set::FieldSet;

/// What a path element with children carries when it is a member itself; without children it is `{}`.
const SELF: &str = ".";

fn empty() -> Value {
    Value::Object(Map::new())
}

/// Takes the paths of `lost` out of `fields`; paths below them stay. Says whether any was there.
pub(super) fn take(fields: &mut Map<String, Value>, lost: &FieldSet) -> bool {
    let mut any = false;
    for member in lost.members() {
        let name = member.encode();
        let Some(below) = fields.get_mut(&name).and_then(Value::as_object_mut) else { continue };
        if below.is_empty() {
            fields.remove(&name);
            any = true;
        } else {
            any |= below.remove(SELF).is_some();
        }
    }
    for (element, lost) in lost.children() {
        let name = element.encode();
        let Some(below) = fields.get_mut(&name).and_then(Value::as_object_mut) else { continue };
        if !take(below, lost) {
            continue;
        }
        any = true;
        if below.is_empty() {
            fields.remove(&name);
        } else if below.len() == 1 && below.contains_key(SELF) {
            below.clear();
        }
    }
    any
}

/// Adds the paths of `gained` to `fields`. Says whether any is new.
pub(super) fn give(fields: &mut Map<String, Value>, gained: &FieldSet) -> bool {
    let mut any = false;
    for member in gained.members() {
        match fields.entry(member.encode()) {
            serde_json::map::Entry::Vacant(slot) => {
                slot.insert(empty());
                any = true;
            }
            serde_json::map::Entry::Occupied(mut slot) => {
                if let Some(below) = slot.get_mut().as_object_mut().filter(|below| !below.is_empty()) {
                    any |= below.insert(SELF.to_owned(), empty()).is_none();
                }
            }
        }
    }
    for (element, gained) in gained.children() {
        let slot = fields.entry(element.encode());
        let is_member = matches!(&slot, serde_json::map::Entry::Occupied(slot) if slot.get() == &empty());
        let Some(below) = slot.or_insert_with(empty).as_object_mut() else { continue };
        if is_member {
            below.insert(SELF.to_owned(), empty());
        }
        any |= give(below, gained);
    }
    any
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::set::PathElement;
    use super::*;

    fn element() -> impl Strategy<Value = PathElement> {
        prop_oneof![
            "[ab]".prop_map(PathElement::Field),
            "[ab]".prop_map(|name| PathElement::Key(format!("{{\"name\":\"{name}\"}}"))),
        ]
    }

    fn set() -> impl Strategy<Value = FieldSet> {
        let path = prop::collection::vec(element(), 1..4);
        prop::collection::vec(path, 0..12).prop_map(|paths| {
            let mut set = FieldSet::default();
            for path in paths {
                set.insert(&path);
            }
            set
        })
    }

    fn object(set: &FieldSet) -> Map<String, Value> {
        set.to_value().as_object().cloned().unwrap_or_default()
    }

    proptest! {
        #[test]
        fn taking_is_the_difference(owned in set(), lost in set()) {
            let mut fields = object(&owned);
            let any = take(&mut fields, &lost);
            let left = owned.difference(&lost);
            prop_assert_eq!(any, left != owned);
            prop_assert_eq!(fields, object(&left));
        }

        #[test]
        fn giving_is_the_union(owned in set(), gained in set()) {
            let mut fields = object(&owned);
            let any = give(&mut fields, &gained);
            let all = owned.union(&gained);
            prop_assert_eq!(any, all != owned);
            prop_assert_eq!(fields, object(&all));
        }
    }
}
