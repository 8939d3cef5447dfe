//! Which pods count for a metric, and how. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;
use muster_admission::quantity::Quantity;

use super::usage::{Part, Sample};
use crate::pods;

/// How long the processor time of a pod that starts may say little about its work.
const STARTING: SignedDuration = SignedDuration::from_mins(5);
/// How soon after its start a pod may become unready without having been ready.
const FIRST_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// The pods of a metric by what is known of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// Pods that work, and what they use, in thousandths of a unit.
    pub(super) ready: BTreeMap<String, i64>,
    /// Pods that do not work yet.
    pub(super) unready: BTreeSet<String>,
    /// Pods that work but were not measured.
    pub(super) missing: BTreeSet<String>,
}

/// A request that utilization is a share of is not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("missing request for {resource} in container {container} of Pod {pod}")]
pub(super) struct MissingRequest {
    resource: String,
    container: String,
    pod: String,
}

impl Group {
    /// Sorts pods. Those that end count for nothing.
    pub(super) fn of(
        pods: &[Arc<Pod>],
        samples: &BTreeMap<String, Sample>,
        resource: &str,
        now: Timestamp,
    ) -> Self {
        let mut group = Self::default();
        for pod in pods {
            let name = pod.name_any();
            if pods::is_terminating(pod) || pods::phase(pod) == "Failed" {
                continue;
            }
            match samples.get(&name) {
                _ if matches!(pods::phase(pod), "Pending" | "") => {
                    group.unready.insert(name);
                }
                None => {
                    group.missing.insert(name);
                }
                Some(sample) if resource == "cpu" && is_starting(pod, sample, now) => {
                    group.unready.insert(name);
                }
                Some(sample) => {
                    group.ready.insert(name, sample.milli);
                }
            }
        }
        group
    }
}

/// Whether the processor time says nothing of the pod's work yet.
fn is_starting(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
    let (Some(ready), Some(started)) = (pods::condition(pod, "Ready"), started) else { return true };
    let changed = ready.last_transition_time.as_ref().map_or(started, |time| time.0);
    let is_unready = ready.status == "False";
    if now.duration_since(started) < STARTING {
        return is_unready || sample.at.duration_since(changed) < sample.window;
    }
    is_unready && changed.duration_since(started) < FIRST_READINESS
}

/// What the pods ask for of a resource, in thousandths of a unit.
pub(super) fn requests(
    pods: &[Arc<Pod>],
    resource: &str,
    part: Part<'_>,
) -> Result<BTreeMap<String, i64>, MissingRequest> {
    let mut requests = BTreeMap::new();
    for pod in pods {
        requests.insert(pod.name_any(), request(pod, resource, part)?);
    }
    Ok(requests)
}

fn request(pod: &Pod, resource: &str, part: Part<'_>) -> Result<i64, MissingRequest> {
    let Some(spec) = &pod.spec else { return Ok(0) };
    let read = |quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity| {
        quantity.0.parse::<Quantity>().ok().map(Quantity::milli_value)
    };
    let whole = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get(resource));
    if let (Part::Pod, Some(whole)) = (part, whole.and_then(read)) {
        return Ok(whole);
    }
    let runs_along = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let beside = spec.init_containers.iter().flatten().filter(runs_along);
    let counted = spec.containers.iter().chain(beside).filter(|container| part.has(&container.name));
    let each = counted.map(|container| {
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        requests.and_then(|requests| read(requests.get(resource)?)).ok_or_else(|| MissingRequest {
            resource: resource.to_owned(),
            container: container.name.clone(),
            pod: pod.name_any(),
        })
    });
    each.sum()
}
