//! Jobs and cron jobs.

use serde_json::Value;

use super::{immutable, non_negative, one_of, pod, required, workload};
use crate::cron::{self, Schedule};
use crate::field::{Errors, FieldError, Path};
use crate::json::{at, flag, has, integer, text};
use crate::selectors::LabelSelector;

/// Pods of a cron job's jobs carry eleven characters more than the cron job's name.
const CRON_JOB_NAME_LIMIT: usize = 52;

/// Checks a job.
pub(super) fn state(job: &Value, errors: &mut Errors) {
    let spec = at(job, &["spec"]);
    common(spec, &Path::root("spec"), errors);
    let selector = at(spec, &["selector"]);
    if selector.is_null() {
        errors.push(FieldError::required("spec.selector", ""));
    } else if let Ok(parsed) = LabelSelector::from_json(selector) {
        workload::selects(&parsed, at(spec, &["template"]), errors);
    }
}

fn common(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for key in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        non_negative(spec, key, path, errors);
    }
    match text(spec, "completionMode") {
        "" | "NonIndexed" => {}
        "Indexed" => {
            if integer(spec, "completions").is_none() {
                let detail = "when completion mode is Indexed";
                errors.push(FieldError::required(&path.field("completions"), detail));
            }
            if let Some(parallelism) =
                integer(spec, "parallelism").filter(|parallelism| *parallelism > 100_000)
            {
                let detail = "must be less than or equal to 100000 when completion mode is Indexed";
                errors.push(FieldError::invalid(&path.field("parallelism"), parallelism, detail));
            }
        }
        other => {
            let supported = ["Indexed", "NonIndexed"];
            errors.push(FieldError::not_supported(&path.field("completionMode"), other, &supported));
        }
    }
    let template_path = path.field("template");
    let template = at(spec, &["template"]);
    pod::template(template, &template_path, errors);
    if !matches!(text(at(template, &["spec"]), "restartPolicy"), "OnFailure" | "Never") {
        let path = template_path.field("spec");
        let detail = "valid values: \"OnFailure\", \"Never\"";
        errors.push(FieldError::required(&path.field("restartPolicy"), detail));
    }
}

/// Checks a change of a job.
pub(super) fn change(old: &Value, new: &Value, errors: &mut Errors) {
    let (before, after) = (at(old, &["spec"]), at(new, &["spec"]));
    completions(old, new, errors);
    immutable(old, new, &["spec", "selector"], errors);
    template(old, new, errors);
    for key in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        if at(before, &[key]) != at(after, &[key]) {
            immutable(old, new, &["spec", key], errors);
        }
    }
}

/// Only indexed jobs grow and shrink, and only with their parallelism.
fn completions(old: &Value, new: &Value, errors: &mut Errors) {
    let (before, after) = (at(old, &["spec"]), at(new, &["spec"]));
    let (from, to) = (integer(before, "completions"), integer(after, "completions"));
    match (from, to) {
        (Some(from), Some(to)) if text(after, "completionMode") == "Indexed" => {
            if from != to && Some(to) != integer(after, "parallelism") {
                let detail = "can only be modified in tandem with spec.parallelism";
                errors.push(FieldError::invalid("spec.completions", to, detail));
            }
        }
        _ => immutable(old, new, &["spec", "completions"], errors),
    }
}

/// A suspended job that never ran can still be steered to nodes.
fn template(old: &Value, new: &Value, errors: &mut Errors) {
    let suspended = flag(at(old, &["spec"]), "suspend");
    let never_started = at(old, &["status", "startTime"]).is_null();
    let mut allowed = old.clone();
    if suspended && never_started {
        for key in ["nodeSelector", "affinity", "tolerations", "schedulingGates"] {
            copy_field(new, &mut allowed, &["spec", "template", "spec"], key);
        }
        for key in ["labels", "annotations"] {
            copy_field(new, &mut allowed, &["spec", "template", "metadata"], key);
        }
    }
    workload::template_change(&allowed, new, errors);
}

fn copy_field(from: &Value, to: &mut Value, holder: &[&str], key: &str) {
    let target = holder.iter().try_fold(to, |value, key| value.get_mut(*key)).and_then(Value::as_object_mut);
    let Some(target) = target else { return };
    match at(from, holder).get(key) {
        Some(value) => {
            target.insert(key.to_owned(), value.clone());
        }
        None => {
            target.remove(key);
        }
    }
}

/// Checks a cron job.
pub(super) fn cron_job(object: &Value, errors: &mut Errors) {
    let name = text(at(object, &["metadata"]), "name");
    let (spec, path) = (at(object, &["spec"]), Path::root("spec"));
    if required(spec, "schedule", &path, errors) {
        schedule(text(spec, "schedule"), &path.field("schedule"), errors);
    }
    if has(spec, "timeZone") {
        time_zone(text(spec, "timeZone"), &path.field("timeZone"), errors);
    }
    one_of(spec, "concurrencyPolicy", &["Allow", "Forbid", "Replace"], &path, errors);
    for key in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        non_negative(spec, key, &path, errors);
    }
    let path = path.field("jobTemplate");
    common(at(spec, &["jobTemplate", "spec"]), &path.field("spec"), errors);
    if name.len() > CRON_JOB_NAME_LIMIT {
        let detail = format!("must be no more than {CRON_JOB_NAME_LIMIT} characters");
        errors.push(FieldError::invalid("metadata.name", name, detail));
    }
    if has(at(spec, &["jobTemplate", "spec"]), "selector") {
        errors.push(FieldError::forbidden(
            "spec.jobTemplate.spec.selector",
            "`selector` will be auto-generated",
        ));
    }
}

fn schedule(schedule: &str, path: &Path<'_>, errors: &mut Errors) {
    // A zone before the fields is for Kubernetes' reader a part of the schedule; its validation refuses it.
    let zoned =
        schedule.split_once(' ').filter(|(zone, _)| zone.starts_with("TZ=") || zone.starts_with("CRON_TZ="));
    if let Err(error) = Schedule::parse(zoned.map_or(schedule, |(_, fields)| fields)) {
        errors.push(FieldError::invalid(path, schedule, error.to_string()));
    }
    if schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(FieldError::invalid(path, schedule, detail));
    }
}

fn time_zone(zone: &str, path: &Path<'_>, errors: &mut Errors) {
    let detail = match zone {
        "" => "timeZone must be nil or non-empty string".to_owned(),
        _ if zone.eq_ignore_ascii_case("local") => {
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".to_owned()
        }
        _ if cron::time_zone(zone).is_none() => format!("unknown time zone {zone}"),
        _ => return,
    };
    errors.push(FieldError::invalid(path, zone, detail));
}
