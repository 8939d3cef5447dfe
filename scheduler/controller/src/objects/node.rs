//! Nodes.

use k8s_openapi::api::core::v1 as core;
use muster_scheduler_core::resources::GPU_RESOURCE;
use muster_scheduler_core::{Node, Taint};

use super::requests::{amounts, whole};

/// A node as the ledger knows it.
pub fn node(object: &core::Node) -> Node {
    let spec = object.spec.as_ref();
    let status = object.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let cordoned = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
    let allocatable = amounts(status.and_then(|status| status.allocatable.as_ref()));
    let taints = spec.and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
    Node {
        name: object.metadata.name.clone().unwrap_or_default(),
        labels: object.metadata.labels.clone().unwrap_or_default(),
        taints: taints
            .map(|taint| Taint {
                key: taint.key.clone(),
                value: taint.value.clone().unwrap_or_default(),
                effect: taint.effect.clone(),
            })
            .collect(),
        schedulable: ready && !cordoned,
        gpu_slots: whole(&allocatable, GPU_RESOURCE),
        allocatable,
    }
}
