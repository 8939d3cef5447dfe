//! Workloads: loaded from traces, or made from distributions and a seed.

pub mod gangs;
pub mod gavel;
pub mod kueue;
pub mod mixed;

use std::collections::BTreeMap;

use muster_scheduler_core::resources::GPU_RESOURCE;
use muster_scheduler_core::{GpuDemand, Member, Node, Resources};
use muster_scheduler_topology::import::labels;

/// Label of the rack, the leaf switch's domain.
pub const RACK: &str = labels::RACK;
/// Label of the zone; leaf and spine networks use it for the spine's domain.
pub const SPINE: &str = labels::ZONE;
/// Label of the GPU model.
pub const PRODUCT: &str = labels::PRODUCT;
/// Pods that a node takes, unless it is said otherwise.
const PODS: i64 = 110;

/// A node without labels; amounts in thousandths.
pub fn node(name: String, processor: i64, memory: i64, gpus: u32) -> Node {
    let allocatable = Resources::new()
        .with("cpu", processor)
        .with("memory", memory)
        .with("pods", PODS * 1000)
        .with(GPU_RESOURCE, i64::from(gpus) * 1000);
    Node { name, schedulable: true, allocatable, gpu_slots: gpus, ..Node::default() }
}

/// The same with a label.
#[must_use]
pub fn labelled(mut node: Node, label: &str, value: impl Into<String>) -> Node {
    node.labels.insert(label.to_owned(), value.into());
    node
}

/// A pod that asks for this much; amounts in thousandths.
pub fn pod(processor: i64, memory: i64, gpu: GpuDemand) -> Member {
    let whole = if let GpuDemand::Whole(count) = gpu { i64::from(count) * 1000 } else { 0 };
    let mut requests = Resources::new().with("cpu", processor).with("pods", 1000);
    for (name, amount) in [("memory", memory), (GPU_RESOURCE, whole)] {
        if amount > 0 {
            requests = requests.with(name, amount);
        }
    }
    Member { requests, node_selector: BTreeMap::new(), ..Member::default() }.with_gpus(gpu)
}
