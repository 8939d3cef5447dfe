//! Conditions as Kubernetes' own kinds have them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// What a condition is to say.
pub(crate) struct Said<'a> {
    pub(crate) type_: &'a str,
    pub(crate) value: bool,
    pub(crate) reason: &'a str,
    pub(crate) message: String,
}

/// Sets a condition, at the end of the list, where `kubectl get` reads the state; whether that was a change.
///
/// One that says the same already stays where it is.
pub(crate) fn set(
    conditions: &mut Vec<Condition>,
    said: Said<'_>,
    generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let status = if said.value { "True" } else { "False" };
    let place = conditions.iter().position(|condition| condition.type_ == said.type_);
    let current = place.map(|place| &conditions[place]);
    if current.is_some_and(|current| {
        current.status == status && current.reason == said.reason && current.message == said.message
    }) {
        return false;
    }
    let since = current
        .filter(|current| current.status == status)
        .map(|current| current.last_transition_time.clone());
    if let Some(place) = place {
        conditions.remove(place);
    }
    conditions.push(Condition {
        type_: said.type_.to_owned(),
        status: status.to_owned(),
        reason: said.reason.to_owned(),
        message: said.message,
        observed_generation: generation,
        last_transition_time: since.unwrap_or(Time(now)),
    });
    true
}
