//! Which old value belongs to a new one, when an update is compared with what was stored.

use serde_json::Value;

use crate::model::ListKind;

/// The old item of a list that is the same entry as `item`: known only for lists with keys.
pub(crate) fn old_item<'a>(list: &ListKind, old: Option<&'a Value>, item: &Value) -> Option<&'a Value> {
    let ListKind::Map(keys) = list else { return None };
    let old = old?.as_array()?;
    old.iter().find(|old| keys.iter().all(|key| old.get(key) == item.get(key)))
}
