//! The order of the items of a merged list.

use std::cmp::Ordering;

use serde_json::Value;

use super::{PATCH, StrategicError};

/// Orders `merged`: items that `wanted` names follow its order, the others keep the order they had in `before`,
/// and the two runs are woven together by where their items stood in `before`.
pub(super) fn arrange(
    merged: Vec<Value>,
    wanted: &[Value],
    before: &[Value],
    key: Option<&str>,
) -> Vec<Value> {
    let place = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item, key));
    let (mut named, mut others): (Vec<_>, Vec<_>) =
        merged.into_iter().partition(|item| place(wanted, item).is_some());
    let by_place = |list: &[Value], left: &Value, right: &Value| match (place(list, left), place(list, right))
    {
        (Some(left), Some(right)) => left.cmp(&right),
        // An item that is not in the list goes behind those that are.
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    };
    named.sort_by(|left, right| by_place(wanted, left, right));
    others.sort_by(|left, right| by_place(before, left, right));
    let mut result = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(left), Some(right)) = (others.peek(), named.peek()) {
        let stood_before = match (place(before, left), place(before, right)) {
            (Some(left), Some(right)) => left < right,
            _ => false,
        };
        result.extend(if stood_before { others.next() } else { named.next() });
    }
    result.extend(named);
    result.extend(others);
    result
}

/// Whether the patch's own items come in the order that it asks for.
pub(super) fn agrees(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), StrategicError> {
    let mut places = order.iter();
    for item in patch.iter().filter(|item| item.get(PATCH).is_none()) {
        if !places.any(|place| same(place, item, key)) {
            return Err(StrategicError::SetElementOrder);
        }
    }
    Ok(())
}

fn same(left: &Value, right: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => left.get(key).is_some() && left.get(key) == right.get(key),
        None => left == right,
    }
}
