//! The pods of a job. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::per_index::FAILURES;
use crate::owners::controller_reference;

/// Label and annotation with the index of a pod.
pub(crate) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Finalizer of a pod that the job has not counted yet.
pub(crate) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// The index of a pod.
pub(crate) fn index_of(pod: &Pod) -> Option<i32> {
    pod.annotations().get(INDEX)?.parse().ok()
}

/// Whether the job still has to count the pod.
pub(crate) fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|finalizer| finalizer == TRACKING)
}

/// A new pod of the job, with an index if the job is indexed, and the failures of that index where the job counts them.
pub(crate) fn build(job: &Job, index: Option<i32>, failures: i32) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let given = template.metadata.unwrap_or_default();
    let name = job.name_any();
    let mut pod = Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: job.namespace(),
            labels: given.labels,
            annotations: given.annotations,
            finalizers: Some(given.finalizers.into_iter().flatten().chain([TRACKING.to_owned()]).collect()),
            owner_references: Some(vec![controller_reference(job)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    };
    if let Some(index) = index {
        let mark = |map: &mut Option<BTreeMap<String, String>>| {
            map.get_or_insert_default().insert(INDEX.into(), index.to_string());
        };
        pod.metadata.generate_name = Some(format!("{name}-{index}-"));
        mark(&mut pod.metadata.labels);
        mark(&mut pod.metadata.annotations);
        if job.spec.as_ref().is_some_and(|spec| spec.backoff_limit_per_index.is_some()) {
            let annotations = pod.metadata.annotations.get_or_insert_default();
            annotations.insert(FAILURES.into(), failures.to_string());
        }
        if let Some(spec) = &mut pod.spec {
            spec.hostname = Some(format!("{name}-{index}"));
            spec.init_containers.iter_mut().flatten().for_each(add_index);
            spec.containers.iter_mut().for_each(add_index);
        }
    }
    pod
}

fn add_index(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let field = ObjectFieldSelector {
        api_version: Some("v1".into()),
        field_path: format!("metadata.labels['{INDEX}']"),
    };
    variables.push(EnvVar {
        name: INDEX_VARIABLE.into(),
        value: None,
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
    });
}
