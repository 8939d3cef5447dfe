//! What may change of a pod that must not be scheduled yet: it may be steered to fewer nodes, never to others.

use serde_json::Value;

use crate::field::{Errors, FieldError};
use crate::json::{at, list, texts};

const TERMS: &str =
    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";

/// Checks that the new spec's node selector and node affinity only add to those of the old.
pub(super) fn steering(old: &Value, new: &Value, errors: &mut Errors) {
    let selector = at(new, &["nodeSelector"]);
    if !texts(old, "nodeSelector").all(|(key, value)| selector[key] == value) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(FieldError::invalid("spec.nodeSelector", selector.clone(), detail));
    }
    let terms = |spec| {
        let required = ["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
        list(at(spec, &required), "nodeSelectorTerms")
    };
    let (before, after) = (terms(old), terms(new));
    if before.is_empty() {
        return;
    }
    if before.len() != after.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(TERMS, Value::from(after.to_vec()), detail));
        return;
    }
    for (index, (before, after)) in before.iter().zip(after).enumerate() {
        if !narrows(before, after) {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(format!("{TERMS}[{index}]"), after.clone(), detail));
        }
    }
}

/// Whether a term only has requirements added at its ends. One without any matches no node, and must stay so.
fn narrows(before: &Value, after: &Value) -> bool {
    let requirements = ["matchExpressions", "matchFields"];
    if requirements.iter().all(|kind| list(before, kind).is_empty()) {
        return requirements.iter().all(|kind| list(after, kind).is_empty());
    }
    requirements.iter().all(|kind| list(after, kind).starts_with(list(before, kind)))
}
