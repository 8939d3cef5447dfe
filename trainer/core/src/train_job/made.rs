//! What may still change in a JobSet that exists.
//!
//! JobSet's webhook takes of a set that is suspended, or is being suspended, `suspend` and five fields of each
//! pod template, those by which others such as Kueue say where pods go; all else stays as it was made. So a set
//! is never made anew from a runtime that was edited meanwhile.

use std::collections::BTreeMap;

use json_patch::jsonptr::PointerBuf;
use json_patch::{Patch, PatchOperation, ReplaceOperation};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_trainer_api::jobset::{JobSet, JobSetSpec};
use muster_trainer_api::train_job::names::{GROUP, VERSION};
use serde::Serialize;
use serde_json::json;

use super::render::pods;
use crate::digest::sha1_hex;

/// Annotations of a JobSet that was made of a job.
pub(super) mod mark {
    /// What its changeable fields were made of, in short: they are written again when that changes.
    pub(crate) const RENDERED: &str = "muster.dev/rendered";
    /// What all else was made of, in short.
    pub(crate) const MADE_OF: &str = "muster.dev/made-of";
    /// Seconds for which it is kept once the job has ended.
    pub(crate) const TTL: &str = "muster.dev/ttl-seconds-after-finished";
}

/// What an annotation of the set says.
pub(super) fn marked<'a>(set: &'a JobSet, mark: &str) -> Option<&'a String> {
    set.metadata.annotations.as_ref()?.get(mark)
}

/// The set as it was made, with the changeable fields as they are wanted now.
pub(super) fn keep(made: &JobSetSpec, mut wanted: JobSetSpec) -> JobSetSpec {
    let mut kept = made.clone();
    for group in &mut kept.replicated_jobs {
        let wanted = wanted.replicated_jobs.iter_mut().find(|other| other.name == group.name);
        if let Some(wanted) = wanted {
            replace_changeable(pods(group), take_changeable(pods(wanted)));
        }
    }
    kept
}

/// Of the changeable fields, in short.
pub(super) fn digest_of_changeable(spec: &JobSetSpec) -> String {
    let mut spec = spec.clone();
    let groups = spec.replicated_jobs.iter_mut();
    let groups: BTreeMap<_, _> =
        groups.map(|group| (group.name.clone(), take_changeable(pods(group)))).collect();
    digest(&groups)
}

/// Of all others, in short.
pub(super) fn digest_of_rest(spec: &JobSetSpec) -> String {
    let mut rest = JobSetSpec { suspend: None, ..spec.clone() };
    for group in &mut rest.replicated_jobs {
        take_changeable(pods(group));
    }
    digest(&rest)
}

/// A template of nothing but the changeable fields; they are gone from the one given.
fn take_changeable(template: &mut PodTemplateSpec) -> PodTemplateSpec {
    let mut taken = PodTemplateSpec::default();
    if let Some(marks) = &mut template.metadata {
        taken.metadata = Some(ObjectMeta {
            annotations: marks.annotations.take(),
            labels: marks.labels.take(),
            ..ObjectMeta::default()
        });
    }
    if let Some(pod) = &mut template.spec {
        let spec = taken.spec.get_or_insert_default();
        spec.node_selector = pod.node_selector.take();
        spec.scheduling_gates = pod.scheduling_gates.take();
        spec.tolerations = pod.tolerations.take();
    }
    taken
}

fn replace_changeable(template: &mut PodTemplateSpec, wanted: PodTemplateSpec) {
    let marks = wanted.metadata.unwrap_or_default();
    if template.metadata.is_some() || marks != ObjectMeta::default() {
        let metadata = template.metadata.get_or_insert_default();
        (metadata.annotations, metadata.labels) = (marks.annotations, marks.labels);
    }
    let (pod, wanted) = (template.spec.get_or_insert_default(), wanted.spec.unwrap_or_default());
    pod.node_selector = wanted.node_selector;
    pod.scheduling_gates = wanted.scheduling_gates;
    pod.tolerations = wanted.tolerations;
}

fn digest(object: &impl Serialize) -> String {
    sha1_hex(&format!("{GROUP}/{VERSION} {}", json!(object)))
}

/// What turns the set into the wanted one and touches nothing else; refused if the set has changed meanwhile.
///
/// A patch and no replacement, for fields that only the installed JobSet knows stay.
pub(super) fn changes(made: &JobSet, wanted: &JobSet) -> Patch {
    let version = ReplaceOperation {
        path: PointerBuf::from_tokens(["metadata", "resourceVersion"]),
        value: json!(made.metadata.resource_version),
    };
    let mut changes = json_patch::diff(&json!(made), &json!(wanted));
    changes.0.insert(0, PatchOperation::Replace(version));
    changes
}
