//! Server-side apply: ownership of fields, conflicts, and removal of what an applier no longer wants.

use std::sync::LazyLock;

use serde_json::{Map, Value};

mod compare;
mod managed;
mod owned;
mod set;
mod typed;
mod update;

pub use managed::{Entry, Operation};
pub use set::{FieldSet, PathElement, SetError};
pub use update::update_managed_fields;

use crate::model::SchemaRef;
use compare::{Comparison, compare};
use typed::Place;

/// Who writes, and when.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The field manager's name.
    pub manager: &'a str,
    /// The object's apiVersion as the writer sees it.
    pub api_version: &'a str,
    /// The subresource it writes through; empty for the object itself.
    pub subresource: &'a str,
    /// The time of the write as RFC 3339.
    pub now: &'a str,
}

/// A field that another manager owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The other manager as messages name it, quotes included: `"one"`.
    pub manager: String,
    /// The field, such as `.spec.size`.
    pub path: String,
}

impl Conflict {
    /// The message of the `Status` cause, whose reason is `FieldManagerConflict` and whose field is `path`.
    pub fn message(&self) -> String {
        format!("conflict with {}", self.manager)
    }
}

/// Why a configuration cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Other managers own fields: 409 `Conflict`.
    #[error("{}", conflict_text(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration carries managed fields: 400 `BadRequest`.
    #[error("metadata.managedFields must be nil")]
    ManagedFieldsGiven,
    /// The configuration does not fit the schema: 500 as Kubernetes answers it.
    #[error("failed to create typed patch object ({object}): {problem}")]
    Malformed {
        /// The object, as `namespace/name; apiVersion, Kind=Kind`.
        object: String,
        /// What does not fit.
        problem: String,
    },
}

fn conflict_text(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: {}: {}", only.message(), only.path);
    }
    let mut lines = Vec::new();
    let mut managers: Vec<&str> = conflicts.iter().map(|conflict| conflict.manager.as_str()).collect();
    managers.sort_unstable();
    managers.dedup();
    for manager in managers {
        lines.push(format!("conflicts with {manager}:"));
        let own = conflicts.iter().filter(|conflict| conflict.manager == manager);
        lines.extend(own.map(|conflict| format!("- {}", conflict.path)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// The fields that no manager ever owns.
fn never_owned() -> &'static FieldSet {
    static FIELDS: LazyLock<FieldSet> = LazyLock::new(|| {
        let metadata = [
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "generation",
            "managedFields",
            "resourceVersion",
        ];
        let paths = [&["apiVersion"][..], &["kind"], &["metadata"]];
        let below: Vec<[&str; 2]> = metadata.iter().map(|name| ["metadata", *name]).collect();
        FieldSet::of_fields(paths.into_iter().chain(below.iter().map(<[&str; 2]>::as_slice)))
    });
    &FIELDS
}

/// What a write through a kind's subresources must not own: the status when the object itself is written and
/// it has a status subresource, everything else when the status is written.
pub fn reset_fields(has_status: bool, subresource: &str) -> FieldSet {
    match subresource {
        "" if has_status => FieldSet::of_fields([&["status"][..]]),
        "status" => FieldSet::of_fields([&["spec"][..]]),
        _ => FieldSet::default(),
    }
}

/// The annotation that client-side apply keeps the last configuration in.
const LAST_APPLIED: &str = "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration";

/// Applies `config` to `live` and returns the new object with its managed fields. Without `live` the object
/// is created. `reset` are fields this write must not own, see [`reset_fields`]. When nothing changes, the
/// result equals `live`.
///
/// # Errors
/// Conflicts, unless `force` is given, and configurations that do not fit the schema.
pub fn apply(
    schema: &SchemaRef,
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    reset: &FieldSet,
    force: bool,
) -> Result<Value, ApplyError> {
    if config.pointer("/metadata/managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(ApplyError::ManagedFieldsGiven);
    }
    let attempt = |force| Application { place: Place::root(schema), writer, reset }.run(live, config, force);
    match attempt(force) {
        Err(ApplyError::Conflicts(conflicts)) if writer.manager == "kubectl" => {
            let allowed = live.and_then(|live| last_applied(schema, live, writer.api_version));
            let allowed = allowed.unwrap_or_default().paths();
            let rest: Vec<Conflict> =
                conflicts.into_iter().filter(|conflict| !allowed.contains(&conflict.path)).collect();
            if rest.is_empty() { attempt(true) } else { Err(ApplyError::Conflicts(rest)) }
        }
        result => result,
    }
}

/// The fields that client-side apply set last: its successor may take them over, unless somebody has changed
/// them since.
fn last_applied(schema: &SchemaRef, live: &Value, api_version: &str) -> Option<FieldSet> {
    let text = live.pointer(LAST_APPLIED)?.as_str()?;
    let config: Value = serde_json::from_str(text).ok()?;
    if config.get("apiVersion")?.as_str()? != api_version {
        return None;
    }
    let place = Place::root(schema);
    let since = compare(&place, &config, live);
    let own = typed::field_set(&place, &config);
    Some(own.difference(&since.modified).difference(&since.added).difference(&since.removed))
}

struct Application<'a> {
    place: Place,
    writer: &'a Writer<'a>,
    reset: &'a FieldSet,
}

impl Application<'_> {
    fn run(&self, live: Option<&Value>, config: &Value, force: bool) -> Result<Value, ApplyError> {
        if let Some(problem) = typed::repeated_entry(&self.place, config, "") {
            return Err(ApplyError::Malformed { object: describe(config), problem });
        }
        let (bare, mut entries) = self.start(live);
        let mut own = self.entry(Operation::Apply);
        own.fields =
            typed::field_set(&self.place, config).recursive_difference(self.reset).difference(never_owned());
        let last = take(&mut entries, &own);
        let merged = typed::merge(&self.place, &bare, config);
        let wanted = match &last {
            Some(last) => self.prune(&merged, &last.fields, &own.fields, &entries),
            None => merged,
        };
        let comparison = compare(&self.place, &bare, &wanted).without(self.reset);
        let conflicts = yield_fields(&mut entries, &comparison);
        if !force && !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
        let unchanged = live.is_some() && bare == wanted;
        own.time = match &last {
            Some(last) if unchanged && last.fields == own.fields && last.api_version == own.api_version => {
                last.time.clone()
            }
            _ => Some(self.writer.now.to_owned()),
        };
        entries.push(own);
        let mut result = wanted;
        managed::write(&mut result, &entries);
        Ok(result)
    }

    /// The live object without its managed fields, and its managers.
    fn start(&self, live: Option<&Value>) -> (Value, Vec<Entry>) {
        let Some(live) = live else { return (Value::Object(Map::new()), Vec::new()) };
        let mut entries = managed::entries(live);
        let mut bare = live.clone();
        managed::strip(&mut bare);
        if entries.is_empty() {
            let mut first = self.entry(Operation::Update);
            "before-first-apply".clone_into(&mut first.manager);
            first.fields = typed::field_set(&self.place, &bare).difference(never_owned());
            first.time = Some(self.writer.now.to_owned());
            entries.push(first);
        }
        (bare, entries)
    }

    fn entry(&self, operation: Operation) -> Entry {
        managed::new_entry(self.writer, operation)
    }

    /// Removes what this applier listed last time, lists no more, and nobody else owns.
    fn prune(&self, merged: &Value, last: &FieldSet, own: &FieldSet, others: &[Entry]) -> Value {
        let named = |set: &FieldSet| typed::with_named_fields(&self.place, set);
        let remove = |set: &FieldSet| {
            typed::remove(&self.place, merged, set).unwrap_or_else(|| Value::Object(Map::new()))
        };
        let last = named(last);
        let all = named(&typed::field_set(&self.place, merged));
        let mut owned = others.iter().fold(own.clone(), |owned, entry| owned.union(&entry.fields));
        owned = named(&owned);
        let pruned = remove(&last);
        let left = named(&typed::field_set(&self.place, &pruned));
        let pruned = remove(&all.difference(&left.union(&owned)));
        let left = named(&typed::field_set(&self.place, &pruned));
        remove(&all.difference(&left).intersection(&last))
    }
}

/// Takes the entry of the same owner out of `entries`.
fn take(entries: &mut Vec<Entry>, own: &Entry) -> Option<Entry> {
    let position = entries.iter().position(|entry| entry.same_owner(own))?;
    Some(entries.remove(position))
}

/// Takes changed and removed fields from their owners; the changed ones are conflicts.
fn yield_fields(entries: &mut [Entry], comparison: &Comparison) -> Vec<Conflict> {
    let changed = comparison.modified.union(&comparison.added);
    let mut conflicts = Vec::new();
    for entry in entries {
        let lost = entry.fields.intersection(&changed);
        let manager = entry.describe();
        conflicts.extend(lost.paths().into_iter().map(|path| Conflict { manager: manager.clone(), path }));
        entry.fields = entry.fields.difference(&lost).difference(&comparison.removed);
    }
    conflicts.sort_by(|left, right| (&left.manager, &left.path).cmp(&(&right.manager, &right.path)));
    conflicts
}

fn describe(config: &Value) -> String {
    let text = |path: &str| config.pointer(path).and_then(Value::as_str).unwrap_or_default();
    format!(
        "{}/{}; {}, Kind={}",
        text("/metadata/namespace"),
        text("/metadata/name"),
        text("/apiVersion"),
        text("/kind")
    )
}

#[cfg(test)]
mod tests;
