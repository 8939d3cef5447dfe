//! Field selectors: `metadata.name=a,spec.nodeName!=b`, over the few fields that each kind offers.

use serde_json::Value;

use crate::group;
use crate::json::{at, text};

/// Why a text is no field selector for a kind. The wording is what clients of Kubernetes see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldSelectorError {
    /// A term has no operator.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term {
        /// The whole text.
        selector: String,
        /// The term without an operator.
        term: String,
    },
    /// A value ends within an escape, or holds a bare `=` or `,`.
    #[error("invalid field selector: {0}")]
    Escape(String),
    /// The kind offers fields, but not this one.
    #[error("field label not supported: {0}")]
    Unsupported(String),
    /// Jobs name themselves.
    #[error("field label {} not supported for Job", crate::field::quote(.0))]
    UnsupportedForJob(String),
    /// The kind offers only name and namespace.
    #[error(
        "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        crate::field::quote(.0)
    )]
    Unknown(String),
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    /// The field's path, for example `spec.nodeName`.
    pub field: String,
    /// Whether the field must equal the value, or differ from it.
    pub equal: bool,
    /// The value.
    pub value: String,
}

/// Comparisons that must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

/// The fields a kind offers beside its name and namespace; `None` when it offers none and says so in its own words.
fn offered(api_group: &str, kind: &str) -> Option<&'static [&'static str]> {
    Some(match (api_group, kind) {
        ("", "Pod") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("" | "events.k8s.io", "Event") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingComponent",
            "reportingController",
            "source",
            "type",
        ],
        ("", "Node") => &["spec.unschedulable"],
        ("", "Namespace") => &["status.phase"],
        ("", "Secret") => &["type"],
        ("", "Service") => &["spec.clusterIP", "spec.type"],
        ("", "ReplicationController") => &["status.replicas"],
        ("batch", "Job") => &["status.successful"],
        _ => return None,
    })
}

impl FieldSelector {
    /// Parses a selector without looking at a kind.
    pub fn parse(selector: &str) -> Result<Self, FieldSelectorError> {
        let mut terms = Vec::new();
        for term in split_terms(selector) {
            if term.is_empty() {
                continue;
            }
            let Some((field, equal, value)) = split_term(term) else {
                return Err(FieldSelectorError::Term {
                    selector: selector.to_owned(),
                    term: term.to_owned(),
                });
            };
            terms.push(FieldTerm { field: field.to_owned(), equal, value: unescape(value)? });
        }
        Ok(Self { terms })
    }

    /// Checks that a kind offers every field; `selectable` are the paths that a custom resource declares, without the
    /// leading dot.
    pub fn check(
        &self,
        api_version: &str,
        kind: &str,
        selectable: Option<&[String]>,
    ) -> Result<(), FieldSelectorError> {
        let api_group = group(api_version);
        let offered = offered(api_group, kind);
        for FieldTerm { field, .. } in &self.terms {
            let known = matches!(field.as_str(), "metadata.name" | "metadata.namespace")
                || offered.is_some_and(|offered| offered.contains(&field.as_str()))
                || selectable.is_some_and(|selectable| selectable.contains(field));
            if !known {
                let field = field.clone();
                return Err(match (offered, selectable) {
                    (Some(_), _) if (api_group, kind) == ("batch", "Job") => {
                        FieldSelectorError::UnsupportedForJob(field)
                    }
                    (None, None) => FieldSelectorError::Unknown(field),
                    _ => FieldSelectorError::Unsupported(field),
                });
            }
        }
        Ok(())
    }

    /// Whether an object is selected.
    pub fn matches(&self, api_version: &str, kind: &str, object: &Value) -> bool {
        let api_group = group(api_version);
        self.terms.iter().all(|term| (read(api_group, kind, object, &term.field) == term.value) == term.equal)
    }

    /// The comparisons, in the order written.
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// The name that objects must have, when the selector asks for one.
    pub fn name(&self) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.equal && term.field == "metadata.name")
            .map(|term| term.value.as_str())
    }
}

/// A field's value as text.
fn read(api_group: &str, kind: &str, object: &Value, field: &str) -> String {
    let is_event = kind == "Event" && matches!(api_group, "" | "events.k8s.io");
    if is_event && field == "source" {
        let source = at(object, &["source"]);
        let component = text(source, "component");
        return if component.is_empty() { text(object, "reportingComponent") } else { component }.to_owned();
    }
    let field = if is_event {
        field.replacen("regarding.", "involvedObject.", 1).replacen(
            "reportingController",
            "reportingComponent",
            1,
        )
    } else {
        field.to_owned()
    };
    let keys: Vec<&str> = field.split('.').collect();
    match at(object, &keys) {
        Value::String(text) => text.clone(),
        Value::Null if matches!(field.as_str(), "spec.hostNetwork" | "spec.unschedulable") => {
            "false".to_owned()
        }
        Value::Null if matches!(field.as_str(), "status.successful" | "status.replicas") => "0".to_owned(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn split_terms(selector: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, character) in selector.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&selector[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.push(&selector[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let index = term
        .find(['=', '!'])
        .filter(|index| !term[*index..].starts_with('!') || term[*index..].starts_with("!="))?;
    let (field, rest) = term.split_at(index);
    for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some(value) = rest.strip_prefix(operator) {
            return Some((field, equal, value));
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, FieldSelectorError> {
    if !value.contains(['\\', '=', ',']) {
        return Ok(value.to_owned());
    }
    let mut plain = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(next @ ('\\' | ',' | '=')) => plain.push(next),
                Some(other) => {
                    return Err(FieldSelectorError::Escape(format!("invalid escape sequence \\{other}")));
                }
                None => return Err(FieldSelectorError::Escape("invalid escape sequence \\".to_owned())),
            },
            '=' | ',' => return Err(FieldSelectorError::Escape(format!("unescaped {character}"))),
            other => plain.push(other),
        }
    }
    Ok(plain)
}
