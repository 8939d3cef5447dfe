//! What the server writes into the status of a custom resource definition.

use serde_json::{Value, json};

use super::definition::{CustomResource, NamesInUse};

/// A condition of a definition's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `NamesAccepted` or `Established`.
    pub kind: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// The reason in one word.
    pub reason: &'static str,
    /// The reason for people.
    pub message: String,
}

impl Condition {
    /// The condition as JSON, last changed at `now` (RFC 3339).
    pub fn to_value(&self, now: &str) -> Value {
        json!({
            "type": self.kind,
            "status": if self.holds { "True" } else { "False" },
            "lastTransitionTime": now,
            "reason": self.reason,
            "message": self.message,
        })
    }
}

/// Decides `NamesAccepted` and `Established` for a definition, given the names that other
/// definitions of its group have taken.
pub fn conditions(resource: &CustomResource, taken: &NamesInUse) -> [Condition; 2] {
    let established = |holds, reason, message: &str| Condition {
        kind: "Established",
        holds,
        reason,
        message: message.to_owned(),
    };
    match conflict(resource, taken) {
        None => [
            Condition {
                kind: "NamesAccepted",
                holds: true,
                reason: "NoConflicts",
                message: "no conflicts found".to_owned(),
            },
            established(true, "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        Some((reason, message)) => [
            Condition { kind: "NamesAccepted", holds: false, reason, message },
            established(false, "NotAccepted", "not all names are accepted"),
        ],
    }
}

fn conflict(resource: &CustomResource, taken: &NamesInUse) -> Option<(&'static str, String)> {
    let used = |name: &String| taken.resources.contains(name);
    let in_use = |name: &String| format!("{} is already in use", Value::from(name.as_str()));
    if used(&resource.plural) {
        return Some(("PluralConflict", in_use(&resource.plural)));
    }
    if used(&resource.singular) {
        return Some(("SingularConflict", in_use(&resource.singular)));
    }
    if let Some(name) = resource.short_names.iter().find(|name| used(name)) {
        return Some(("ShortNamesConflict", in_use(name)));
    }
    if taken.kinds.contains(&resource.kind) {
        return Some(("KindConflict", in_use(&resource.kind)));
    }
    taken.kinds.contains(&resource.list_kind).then(|| ("ListKindConflict", in_use(&resource.list_kind)))
}

/// The status of a definition that was just created, before its names are decided on.
pub fn initial_status(resource: &CustomResource) -> Value {
    let stored: Vec<&str> = resource.storage_version().iter().map(|version| version.name.as_str()).collect();
    json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored})
}

/// `status.acceptedNames` of a definition whose names were accepted.
pub fn accepted_names(resource: &CustomResource) -> Value {
    let mut names = json!({
        "plural": resource.plural,
        "singular": resource.singular,
        "kind": resource.kind,
        "listKind": resource.list_kind,
    });
    for (name, list) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
        if !list.is_empty() {
            names[name] = json!(list);
        }
    }
    names
}
