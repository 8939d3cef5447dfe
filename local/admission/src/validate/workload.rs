//! Deployments, replica sets, stateful sets and daemon sets.

use serde_json::{Value, json};

use super::{immutable, non_negative, pod};
use crate::field::{Errors, FieldError, Path};
use crate::json::{at, has, integer, list, text};
use crate::selectors::LabelSelector;

/// Checks a selector and the template that it must select.
fn selected_template(spec: &Value, kind: &str, errors: &mut Errors) {
    let path = Path::root("spec");
    let selector = at(spec, &["selector"]);
    if selector.is_null() {
        errors.push(FieldError::required("spec.selector", ""));
    }
    let template = at(spec, &["template"]);
    match LabelSelector::from_json(selector) {
        Ok(parsed) if parsed.is_everything() => {
            let detail = format!("empty selector is invalid for {kind}");
            errors.push(FieldError::invalid("spec.selector", selector.clone(), detail));
        }
        Ok(parsed) => selects(&parsed, template, errors),
        Err(_) => {
            errors.push(FieldError::invalid("spec.selector", selector.clone(), "invalid label selector"));
        }
    }
    pod::template(template, &path.field("template"), errors);
    let restart = text(at(template, &["spec"]), "restartPolicy");
    if !matches!(restart, "Always" | "") {
        errors.push(FieldError::not_supported("spec.template.spec.restartPolicy", restart, &["Always"]));
    }
    if has(at(template, &["spec"]), "activeDeadlineSeconds") {
        let detail = "activeDeadlineSeconds in ReplicaSet is not Supported";
        errors.push(FieldError::forbidden("spec.template.spec.activeDeadlineSeconds", detail));
    }
}

/// A template's labels must be among those that the selector looks for.
pub(super) fn selects(selector: &LabelSelector, template: &Value, errors: &mut Errors) {
    let labels = at(template, &["metadata", "labels"]);
    if !selector.matches(labels) {
        let detail = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", labels.clone(), detail));
    }
}

pub(super) fn deployment(object: &Value, errors: &mut Errors) {
    let (spec, path) = (at(object, &["spec"]), Path::root("spec"));
    non_negative(spec, "replicas", &path, errors);
    selected_template(spec, "deployment", errors);
    let strategy = at(spec, &["strategy"]);
    match text(strategy, "type") {
        "Recreate" => {
            if has(strategy, "rollingUpdate") {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(FieldError::forbidden("spec.strategy.rollingUpdate", detail));
            }
        }
        "RollingUpdate" => {
            let path = path.field("strategy");
            rolling_update(at(strategy, &["rollingUpdate"]), &path.field("rollingUpdate"), errors);
        }
        other => {
            let supported = ["Recreate", "RollingUpdate"];
            errors.push(FieldError::not_supported("spec.strategy.type", other, &supported));
        }
    }
    for key in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        non_negative(spec, key, &path, errors);
    }
    if let Some(deadline) = integer(spec, "progressDeadlineSeconds")
        && deadline <= integer(spec, "minReadySeconds").unwrap_or_default()
    {
        let detail = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid("spec.progressDeadlineSeconds", deadline, detail));
    }
}

/// How many pods a rolling update may add and miss.
fn rolling_update(update: &Value, path: &Path<'_>, errors: &mut Errors) {
    let amounts = ["maxUnavailable", "maxSurge"].map(|key| amount(update, key, path, errors));
    if amounts == [Some(0), Some(0)] {
        let value = at(update, &["maxUnavailable"]).clone();
        let detail = "may not be 0 when `maxSurge` is 0";
        errors.push(FieldError::invalid(&path.field("maxUnavailable"), value, detail));
    }
}

/// The number or percentage of a field; none if it is not one.
fn amount(update: &Value, key: &str, path: &Path<'_>, errors: &mut Errors) -> Option<i64> {
    let field = path.field(key);
    match at(update, &[key]) {
        Value::String(text) => {
            let percent = text.strip_suffix('%').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
            match percent.and_then(|digits| digits.parse::<i64>().ok()) {
                None => {
                    let detail = "a valid percent string must be a numeric string followed by an ending '%' \
                                  (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                    errors.push(FieldError::invalid(&field, text.as_str(), detail));
                    None
                }
                Some(percent) if percent > 100 && key == "maxUnavailable" => {
                    errors.push(FieldError::invalid(&field, text.as_str(), "must not be greater than 100%"));
                    None
                }
                percent => percent,
            }
        }
        other => {
            let number = other.as_i64();
            if let Some(number) = number.filter(|number| *number < 0) {
                errors.push(FieldError::invalid(&field, number, "must be greater than or equal to 0"));
            }
            number
        }
    }
}

pub(super) fn deployment_change(old: &Value, new: &Value, errors: &mut Errors) {
    immutable(old, new, &["spec", "selector"], errors);
}

pub(super) fn replica_set(object: &Value, errors: &mut Errors) {
    let (spec, path) = (at(object, &["spec"]), Path::root("spec"));
    non_negative(spec, "replicas", &path, errors);
    non_negative(spec, "minReadySeconds", &path, errors);
    selected_template(spec, "deployment", errors);
}

pub(super) fn replica_set_change(old: &Value, new: &Value, errors: &mut Errors) {
    immutable(old, new, &["spec", "selector"], errors);
}

pub(super) fn stateful_set(object: &Value, errors: &mut Errors) {
    let (spec, path) = (at(object, &["spec"]), Path::root("spec"));
    super::one_of(spec, "podManagementPolicy", &["OrderedReady", "Parallel"], &path, errors);
    let strategy = path.field("updateStrategy");
    let update = at(spec, &["updateStrategy"]);
    super::one_of(update, "type", &["OnDelete", "RollingUpdate"], &strategy, errors);
    match text(update, "type") {
        "RollingUpdate" => {
            let (rolling, path) = (at(update, &["rollingUpdate"]), strategy.field("rollingUpdate"));
            non_negative(rolling, "partition", &path, errors);
            if has(rolling, "maxUnavailable") && amount(rolling, "maxUnavailable", &path, errors) == Some(0) {
                let value = at(rolling, &["maxUnavailable"]).clone();
                errors.push(FieldError::invalid(&path.field("maxUnavailable"), value, "cannot be 0"));
            }
        }
        "OnDelete" if has(update, "rollingUpdate") => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            let value = at(update, &["rollingUpdate"]).clone();
            errors.push(FieldError::invalid(&strategy.field("rollingUpdate"), value, detail));
        }
        _ => {}
    }
    let retention_path = path.field("persistentVolumeClaimRetentionPolicy");
    let retention = at(spec, &["persistentVolumeClaimRetentionPolicy"]);
    if !retention.is_null() {
        for key in ["whenDeleted", "whenScaled"] {
            super::one_of(retention, key, &["Delete", "Retain"], &retention_path, errors);
        }
    }
    for key in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        non_negative(spec, key, &path, errors);
    }
    non_negative(at(spec, &["ordinals"]), "start", &path.field("ordinals"), errors);
    selected_template(&with_claimed_volumes(spec), "statefulset", errors);
}

/// The spec with a volume in the template for every claim template: pods have those, too, and mount them.
fn with_claimed_volumes(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let claims = list(&spec, "volumeClaimTemplates").iter();
    let names: Vec<String> = claims.map(|claim| text(at(claim, &["metadata"]), "name").to_owned()).collect();
    let Some(pod) = spec.pointer_mut("/template/spec").and_then(Value::as_object_mut) else { return spec };
    let volumes = pod.entry("volumes").or_insert_with(|| json!([]));
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.retain(|volume| !names.iter().any(|name| name == text(volume, "name")));
        volumes.extend(names.iter().map(|name| json!({ "name": name, "emptyDir": {} })));
    }
    spec
}

pub(super) fn stateful_set_change(old: &Value, new: &Value, errors: &mut Errors) {
    let fixed = |object: &Value| {
        let mut spec = at(object, &["spec"]).clone();
        if let Some(fields) = spec.as_object_mut() {
            for key in [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
            ] {
                fields.remove(key);
            }
        }
        spec
    };
    if fixed(old) != fixed(new) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                      'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                      'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden("spec", detail));
    }
}

pub(super) fn daemon_set(object: &Value, errors: &mut Errors) {
    let (spec, path) = (at(object, &["spec"]), Path::root("spec"));
    selected_template(spec, "daemonset", errors);
    non_negative(spec, "minReadySeconds", &path, errors);
    let strategy = path.field("updateStrategy");
    let update = at(spec, &["updateStrategy"]);
    super::one_of(update, "type", &["OnDelete", "RollingUpdate"], &strategy, errors);
    if text(update, "type") == "RollingUpdate" {
        let (rolling, path) = (at(update, &["rollingUpdate"]), strategy.field("rollingUpdate"));
        let amounts = ["maxUnavailable", "maxSurge"].map(|key| amount(rolling, key, &path, errors));
        match amounts.map(|amount| amount.unwrap_or_default() != 0) {
            [true, true] => {
                let value = at(rolling, &["maxSurge"]).clone();
                let detail = "may not be set when maxUnavailable is non-zero";
                errors.push(FieldError::invalid(&path.field("maxSurge"), value, detail));
            }
            [false, false] => {
                let detail = "cannot be 0 when maxSurge is 0";
                errors.push(FieldError::required(&path.field("maxUnavailable"), detail));
            }
            _ => {}
        }
    }
    non_negative(spec, "revisionHistoryLimit", &path, errors);
}

pub(super) fn daemon_set_change(old: &Value, new: &Value, errors: &mut Errors) {
    immutable(old, new, &["spec", "selector"], errors);
}

/// A job's template never changes.
pub(super) fn template_change(old: &Value, new: &Value, errors: &mut Errors) {
    let (before, after) = (at(old, &["spec", "template"]), at(new, &["spec", "template"]));
    if before != after {
        errors.push(FieldError::invalid("spec.template", after.clone(), "field is immutable"));
    }
}

pub(super) fn controller_revision(object: &Value, errors: &mut Errors) {
    if !has(object, "data") {
        errors.push(FieldError::required("data", "data is mandatory"));
    }
    if let Some(revision) = integer(object, "revision").filter(|revision| *revision < 0) {
        errors.push(FieldError::invalid("revision", revision, "must be greater than or equal to 0"));
    }
}

pub(super) fn controller_revision_change(old: &Value, new: &Value, errors: &mut Errors) {
    immutable(old, new, &["data"], errors);
}
