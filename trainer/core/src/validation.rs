//! Which jobs are valid beyond what the custom resource's schema can say.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_trainer_api::{CleanPodPolicy, ReplicaSpec, RestartPolicy, RunPolicy, annotation, managed_by};

use crate::job::RestartScope;
use crate::kind::Kind;

/// A field that does not hold what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct FieldError {
    /// Where, such as `spec.pytorchReplicaSpecs[Master].replicas`.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// Sorts the replicas by the kind's spelling of their types, which are written in any case.
pub(crate) fn normalise(
    kind: &Kind,
    replica_specs: &BTreeMap<String, ReplicaSpec>,
    errors: &mut Vec<FieldError>,
) -> BTreeMap<&'static str, ReplicaSpec> {
    let mut normalised = BTreeMap::new();
    for (key, spec) in replica_specs {
        let path = format!("spec.{}[{key}]", kind.replica_specs);
        match kind.replica_types.iter().find(|type_| type_.name.eq_ignore_ascii_case(key)) {
            None => {
                let known: Vec<_> = kind.replica_types.iter().map(|type_| type_.name).collect();
                errors.push(FieldError::new(
                    path,
                    format!("unsupported replica type, use {}", known.join(" or ")),
                ));
            }
            Some(type_) if normalised.insert(type_.name, spec.clone()).is_some() => {
                errors.push(FieldError::new(path, format!("replica type {} is given twice", type_.name)));
            }
            Some(_) => {}
        }
    }
    normalised
}

/// The checks that all kinds share.
pub(crate) fn validate(
    kind: &Kind,
    metadata: &ObjectMeta,
    replica_specs: &BTreeMap<&'static str, ReplicaSpec>,
    run_policy: &RunPolicy,
    errors: &mut Vec<FieldError>,
) {
    let name = metadata.name.as_deref().unwrap_or_default();
    if !is_dns_1035_label(name) {
        errors.push(FieldError::new(
            "metadata.name",
            format!("`{name}` is no DNS-1035 label: at most 63 lower case letters, digits or '-', starting with a letter and ending with a letter or digit"),
        ));
    }
    validate_run_policy(run_policy, errors);
    let scope =
        metadata.annotations.as_ref().and_then(|annotations| annotations.get(annotation::RESTART_SCOPE));
    if let Some(scope) = scope.filter(|scope| RestartScope::parse(scope).is_none()) {
        errors.push(FieldError::new(
            format!("metadata.annotations[{}]", annotation::RESTART_SCOPE),
            format!("`{scope}` is unknown, use gang or pod"),
        ));
    }
    if replica_specs.is_empty() {
        errors.push(FieldError::new(
            format!("spec.{}", kind.replica_specs),
            "at least one replica type is needed",
        ));
    }
    for type_ in kind.replica_types {
        if let Some(spec) = replica_specs.get(type_.name) {
            let path = format!("spec.{}[{}]", kind.replica_specs, type_.name);
            validate_replica(kind, type_.name, type_.exactly, spec, name, &path, errors);
        }
    }
}

fn validate_replica(
    kind: &Kind,
    type_: &str,
    exactly: Option<i32>,
    spec: &ReplicaSpec,
    job: &str,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let replicas = spec.replicas.unwrap_or(1);
    match exactly {
        Some(exactly) if replicas != exactly => {
            errors.push(FieldError::new(
                format!("{path}.replicas"),
                format!("must be {exactly}, not {replicas}"),
            ));
        }
        None if replicas < 1 => {
            errors.push(FieldError::new(
                format!("{path}.replicas"),
                format!("must be at least 1, not {replicas}"),
            ));
        }
        _ => {
            let longest = crate::objects::object_name(job, type_, replicas - 1);
            if longest.len() > 63 {
                errors.push(FieldError::new(
                    "metadata.name",
                    format!("too long: the service `{longest}` would have more than 63 characters"),
                ));
            }
        }
    }
    if let Some(RestartPolicy::Unknown(other)) = &spec.restart_policy {
        errors.push(FieldError::new(
            format!("{path}.restartPolicy"),
            format!("`{other}` is unknown, use Always, OnFailure, Never or ExitCode"),
        ));
    }
    let containers = spec.template.spec.as_ref().map(|pod| pod.containers.as_slice()).unwrap_or_default();
    let containers_path = format!("{path}.template.spec.containers");
    if containers.is_empty() {
        errors.push(FieldError::new(containers_path, "at least one container is needed"));
        return;
    }
    for (position, container) in containers.iter().enumerate() {
        if container.image.as_deref().unwrap_or_default().is_empty() {
            errors
                .push(FieldError::new(format!("{containers_path}[{position}].image"), "an image is needed"));
        }
    }
    if !containers.iter().any(|container| container.name == kind.container) {
        errors.push(FieldError::new(
            containers_path,
            format!("one container must be named {}, it is the one that trains", kind.container),
        ));
    }
}

pub(crate) fn validate_run_policy(run_policy: &RunPolicy, errors: &mut Vec<FieldError>) {
    if let Some(other) = run_policy.managed_by.as_deref()
        && !matches!(other, "" | managed_by::TRAINING_OPERATOR | managed_by::MULTI_KUEUE)
    {
        errors.push(FieldError::new(
            "spec.runPolicy.managedBy",
            format!(
                "`{other}` is unknown, use {} or {}",
                managed_by::TRAINING_OPERATOR,
                managed_by::MULTI_KUEUE
            ),
        ));
    }
    if let Some(CleanPodPolicy::Unknown(other)) = &run_policy.clean_pod_policy {
        errors.push(FieldError::new(
            "spec.runPolicy.cleanPodPolicy",
            format!("`{other}` is unknown, use All, Running or None"),
        ));
    }
    let numbers = [
        ("ttlSecondsAfterFinished", run_policy.ttl_seconds_after_finished.map(i64::from)),
        ("activeDeadlineSeconds", run_policy.active_deadline_seconds),
        ("backoffLimit", run_policy.backoff_limit.map(i64::from)),
    ];
    for (field, number) in numbers {
        if number.is_some_and(|number| number < 0) {
            errors.push(FieldError::new(format!("spec.runPolicy.{field}"), "must not be negative"));
        }
    }
}

/// What an update may not change: who is in charge of the job, and its queue.
pub fn validate_update(new: &RunPolicy, old: &RunPolicy) -> Result<(), Vec<FieldError>> {
    let mut errors = Vec::new();
    if new.managed_by != old.managed_by {
        errors.push(FieldError::new("spec.runPolicy.managedBy", "field is immutable"));
    }
    let queue =
        |policy: &RunPolicy| policy.scheduling_policy.as_ref().and_then(|policy| policy.queue.clone());
    if let (Some(new), Some(old)) = (queue(new), queue(old))
        && new != old
    {
        errors.push(FieldError::new("spec.runPolicy.schedulingPolicy.queue", "field is immutable"));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

pub(crate) fn is_dns_1035_label(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last().is_some_and(|last| last.is_ascii_lowercase() || last.is_ascii_digit())
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}
