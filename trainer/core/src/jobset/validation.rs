//! Which sets can be carried out, beyond what the custom resource's schema can say.

use std::collections::BTreeSet;

use muster_trainer_api::jobset::{JobSet, JobSetSpec, RestartStrategy};
use regex::Regex;

use super::children::replicas;
use super::{objects, order};
use crate::validation::{FieldError, is_dns_1035_label};

/// Reasons of a Job's condition `Failed`.
const FAILURE_REASONS: [&str; 5] = [
    "BackoffLimitExceeded",
    "DeadlineExceeded",
    "FailedIndexes",
    "MaxFailedIndexesExceeded",
    "PodFailurePolicy",
];

/// What keeps a set from being carried out.
pub fn validate(set: &JobSet) -> Vec<FieldError> {
    let mut errors = Vec::new();
    names(set, &mut errors);
    dependencies(&set.spec, &mut errors);
    policies(&set.spec, &mut errors);
    coordinator(&set.spec, &mut errors);
    errors
}

fn names(set: &JobSet, errors: &mut Vec<FieldError>) {
    let name = objects::name(set);
    let mut seen = BTreeSet::new();
    for (place, group) in set.spec.replicated_jobs.iter().enumerate() {
        let field = format!("spec.replicatedJobs[{place}].name");
        if !seen.insert(&group.name) {
            errors.push(FieldError::new(&field, format!("`{}` is given twice", group.name)));
        }
        let last_job = objects::job_name(name, &group.name, (replicas(group) - 1).max(0));
        let spec = group.template.spec.as_ref();
        let completions = spec.and_then(|spec| spec.completions.or(spec.parallelism)).unwrap_or(1);
        let last_pod = format!("{last_job}-{}", (completions - 1).max(0));
        if !is_dns_1035_label(&last_pod) {
            errors.push(FieldError::new(
                &field,
                format!("its pods would have host names such as `{last_pod}`, which is no DNS-1035 label: at most 63 lower case letters, digits or '-'; shorten the name of the set or of the group"),
            ));
        }
    }
    let subdomain = objects::subdomain(set);
    if objects::has_hostnames(&set.spec) && !is_dns_1035_label(subdomain) {
        errors.push(FieldError::new(
            "spec.network.subdomain",
            format!("`{subdomain}` is no DNS-1035 label, which names of services are"),
        ));
    }
}

fn dependencies(spec: &JobSetSpec, errors: &mut Vec<FieldError>) {
    for (place, group) in spec.replicated_jobs.iter().enumerate() {
        for dependency in &group.depends_on {
            let field = format!("spec.replicatedJobs[{place}].dependsOn[{}]", dependency.name);
            if order::is_in_order(spec) {
                errors.push(FieldError::new(&field, "does not go with spec.startupPolicy InOrder"));
            }
            if !spec.replicated_jobs[..place].iter().any(|other| other.name == dependency.name) {
                errors
                    .push(FieldError::new(&field, "names no replicated job that is listed before this one"));
            }
        }
    }
}

fn policies(spec: &JobSetSpec, errors: &mut Vec<FieldError>) {
    let known = |field: String, targets: &[String], errors: &mut Vec<FieldError>| {
        let is_unknown = |target: &&String| !spec.replicated_jobs.iter().any(|group| group.name == **target);
        for target in targets.iter().filter(is_unknown) {
            errors.push(FieldError::new(&field, format!("there is no replicated job `{target}`")));
        }
    };
    if let Some(policy) = &spec.success_policy {
        known("spec.successPolicy.targetReplicatedJobs".to_owned(), &policy.target_replicated_jobs, errors);
    }
    let Some(policy) = &spec.failure_policy else { return };
    if policy.restart_strategy == Some(RestartStrategy::InPlaceRestart) {
        errors.push(FieldError::new(
            "spec.failurePolicy.restartStrategy",
            "InPlaceRestart needs an agent in the pods, which is not offered; use Recreate or BlockingRecreate",
        ));
    }
    for (place, rule) in policy.rules.iter().enumerate() {
        let field = format!("spec.failurePolicy.rules[{place}]");
        known(format!("{field}.targetReplicatedJobs"), &rule.target_replicated_jobs, errors);
        let unknown = |reason: &&String| !FAILURE_REASONS.contains(&reason.as_str());
        for reason in rule.on_job_failure_reasons.iter().filter(unknown) {
            errors.push(FieldError::new(
                format!("{field}.onJobFailureReasons"),
                format!(
                    "`{reason}` is no reason for which Jobs fail; they are {}",
                    FAILURE_REASONS.join(", ")
                ),
            ));
        }
        for pattern in &rule.on_job_failure_message_patterns {
            if let Err(error) = Regex::new(pattern) {
                errors.push(FieldError::new(
                    format!("{field}.onJobFailureMessagePatterns"),
                    format!("`{pattern}` is no regular expression: {error}"),
                ));
            }
        }
    }
}

fn coordinator(spec: &JobSetSpec, errors: &mut Vec<FieldError>) {
    let Some(coordinator) = &spec.coordinator else { return };
    let named = spec.replicated_jobs.iter().find(|group| group.name == coordinator.replicated_job);
    let Some(group) = named else {
        let message = format!("there is no replicated job `{}`", coordinator.replicated_job);
        return errors.push(FieldError::new("spec.coordinator.replicatedJob", message));
    };
    if !(0..i64::from(replicas(group))).contains(&coordinator.job_index) {
        let message = format!("{} has {} jobs, numbered from 0", group.name, replicas(group));
        errors.push(FieldError::new("spec.coordinator.jobIndex", message));
    }
    let job = group.template.spec.as_ref();
    let pods = job.and_then(|job| job.completions.or(job.parallelism)).unwrap_or(1);
    if !(0..i64::from(pods)).contains(&coordinator.pod_index) {
        let message = format!("jobs of {} have {pods} pods, numbered from 0", group.name);
        errors.push(FieldError::new("spec.coordinator.podIndex", message));
    }
}
