//! Jobs in which every index may fail a number of times of its own. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::failure_policy::{Verdict, judge};
use super::pod::index_of;

/// Annotation with the number of failures of the index before this pod.
pub(crate) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";

/// How often the index of a pod had failed before it.
fn failures_before(pod: &Pod) -> i32 {
    pod.annotations().get(FAILURES).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Whether the failure of this pod is one too many for its index.
pub(crate) fn exceeds(spec: &JobSpec, pod: &Pod) -> bool {
    spec.backoff_limit_per_index.is_some_and(|limit| failures_before(pod) >= limit)
}

/// How often each index has failed, by the pods that are there.
pub(crate) fn failures(
    spec: &JobSpec,
    pods: &[Arc<Pod>],
    failed: impl Fn(&Pod) -> bool,
) -> BTreeMap<i32, i32> {
    let mut counts = BTreeMap::new();
    if spec.backoff_limit_per_index.is_none() {
        return counts;
    }
    for pod in pods {
        let Some(index) = index_of(pod) else { continue };
        let counts_itself = failed(pod) && judge(spec.pod_failure_policy.as_ref(), pod) != Verdict::Ignore;
        let count = counts.entry(index).or_insert(0);
        *count = (*count).max(failures_before(pod) + i32::from(counts_itself));
    }
    counts
}
