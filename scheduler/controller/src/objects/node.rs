//! Nodes.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use muster_scheduler_api::annotations::GPU_TOPOLOGY;
use muster_scheduler_core::resources::GPU_RESOURCE;
use muster_scheduler_core::{GpuTopology, Node, Taint};
use muster_scheduler_topology::Accelerator;
use muster_scheduler_topology::import::{labels, nvidia_smi};

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
        gpu_topology: gpu_topology(object),
    }
}

/// The links that an administrator wrote down. An empty annotation says nothing.
fn gpu_topology(object: &core::Node) -> GpuTopology {
    let annotations = object.metadata.annotations.as_ref();
    let Some(text) = annotations.and_then(|all| all.get(GPU_TOPOLOGY)).filter(|text| !text.trim().is_empty())
    else {
        return GpuTopology::Unsaid;
    };
    let product = object.metadata.labels.as_ref().and_then(|all| all.get(labels::PRODUCT));
    let accelerator = product.map_or(Accelerator::PCIE, |product| Accelerator::of_product(product));
    match nvidia_smi::interior(text, accelerator) {
        Ok(interior) => GpuTopology::Links(Arc::new(interior)),
        Err(fault) => GpuTopology::Unreadable(format!("{GPU_TOPOLOGY}: {fault}")),
    }
}

#[cfg(test)]
mod tests {
    use muster_scheduler_topology::LinkKind;
    use serde_json::json;

    use super::*;

    #[test]
    fn links_between_gpus_are_read_where_somebody_wrote_them() {
        let read = |text: &str| {
            let object = json!({"metadata": {"name": "n", "annotations": {"muster.dev/gpu-topology": text}}});
            node(&serde_json::from_value(object).unwrap()).gpu_topology
        };
        let table = "\tGPU0\tGPU1\nGPU0\t X \tNV4\nGPU1\tNV4\t X \n";
        let GpuTopology::Links(interior) = read(table) else { panic!("it is a table") };
        assert_eq!(interior.link(0, 1), Some(LinkKind::NvLink(4)));
        assert_eq!(read(" "), GpuTopology::Unsaid);
        let sentence = "muster.dev/gpu-topology: line 2, column GPU1: \"FAR\" is none of X, NV#, PIX, PXB, PHB, NODE and SYS";
        assert_eq!(read(&table.replace("NV4", "FAR")), GpuTopology::Unreadable(sentence.to_owned()));
    }
}
