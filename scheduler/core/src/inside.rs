//! What nodes are like inside, and which of their free GPUs to take.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use muster_scheduler_topology::cost::Hosts;
use muster_scheduler_topology::import::{Inside, Insides, labels};
use muster_scheduler_topology::{Accelerator, GpuSet, NodeInterior, Position, Topology};

use crate::node::{GpuTopology, Node};

/// Choices that are remembered.
const MOST_CHOICES: usize = 1 << 16;

/// From what a node's interior is known; nodes of whom the same is known share it.
#[derive(PartialEq, Eq, Hash)]
enum Kind<'a> {
    /// From its model alone.
    Model(Option<&'a str>, u32),
    /// From its model and the NUMA nodes of its GPUs.
    Zones(Option<&'a str>, &'a [Option<u16>]),
    /// From what somebody wrote down.
    Links(&'a NodeInterior),
}

/// The interiors of a topology's nodes.
#[derive(Debug, Clone)]
pub struct Interiors {
    /// Every node's.
    pub hosts: Hosts,
    /// By position, whether somebody wrote it down; otherwise it is what such models are like.
    pub written: Vec<bool>,
    /// What was written and is not followed, a sentence each.
    pub faults: Vec<String>,
}

impl Interiors {
    /// `node_at` gives the node of a position. What is written on the node counts before what objects say of it, and
    /// that before what its model is like.
    pub fn new<'a>(
        topology: &Topology,
        node_at: impl Fn(Position) -> &'a Node,
        insides: &'a Insides,
    ) -> Self {
        let mut faults = insides.faults().to_vec();
        let mut kinds: HashMap<Kind<'_>, usize> = HashMap::new();
        let mut interiors = Vec::new();
        let mut kind_of = vec![0; topology.node_count()];
        let mut written = Vec::with_capacity(topology.node_count());
        for position in (0..topology.node_count() as u32).map(Position) {
            let node = node_at(position);
            let product = node.labels.get(labels::PRODUCT).map(String::as_str);
            let kind = kind(node, product, insides, &mut faults);
            written.push(!matches!(kind, Kind::Model(..)));
            kind_of[topology.node_at(position)] = *kinds.entry(kind).or_insert_with_key(|kind| {
                interiors.push(interior(kind));
                interiors.len() - 1
            });
        }
        Self { hosts: Hosts::new(topology, interiors, |node| kind_of[node]), written, faults }
    }
}

fn kind<'a>(
    node: &'a Node,
    product: Option<&'a str>,
    insides: &'a Insides,
    faults: &mut Vec<String>,
) -> Kind<'a> {
    if let GpuTopology::Unreadable(fault) = &node.gpu_topology {
        faults.push(format!("node {:?}: {fault}", node.name));
    }
    let mut has_all = |found: usize, from: &str| {
        let enough = found >= node.gpu_slots as usize;
        if !enough {
            let (name, slots) = (&node.name, node.gpu_slots);
            faults.push(format!("node {name:?}: {from} tells of {found} GPUs, but it has {slots}"));
        }
        enough
    };
    if let GpuTopology::Links(interior) = &node.gpu_topology
        && has_all(interior.gpu_count(), "its GPU topology")
    {
        return Kind::Links(interior);
    }
    match insides.of(&node.name) {
        Some(Inside::Links(interior)) if has_all(interior.gpu_count(), "its ResourceSlices") => {
            Kind::Links(interior)
        }
        Some(Inside::Zones(numa)) if has_all(numa.len(), "its NodeResourceTopology") => {
            Kind::Zones(product, numa)
        }
        _ => Kind::Model(product, node.gpu_slots),
    }
}

fn interior(kind: &Kind<'_>) -> NodeInterior {
    let model = |product: Option<&str>| product.map_or(Accelerator::PCIE, Accelerator::of_product);
    match kind {
        Kind::Model(product, gpus) => NodeInterior::standard(model(*product), *gpus as usize),
        Kind::Zones(product, numa) => Inside::Zones(numa.to_vec()).interior(model(*product)),
        Kind::Links(interior) => (*interior).clone(),
    }
}

/// Of these nodes, which pods: so many of them, with so many GPUs each, on these free ones.
type Question = (usize, GpuSet, u32, u32);

/// The GPUs of each pod.
type Shares = Arc<[GpuSet]>;

/// How free GPUs were shared out among pods: the same question always has the same answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choices(Arc<Mutex<HashMap<Question, Shares>>>);

impl Choices {
    /// The GPUs of `pods` pods with `each` of them: the best of the free ones for all of them together by their links,
    /// each pod's near each other and next to those of the pod before. Fewer pods when too few are free.
    pub(crate) fn share_out(
        &self,
        hosts: &Hosts,
        position: Position,
        free: GpuSet,
        each: u32,
        pods: u32,
    ) -> Shares {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_CHOICES {
            known.clear();
        }
        let question = (hosts.kind(position), free, each, pods);
        let shares =
            known.entry(question).or_insert_with(|| shares(hosts.interior(position), free, each, pods));
        Arc::clone(shares)
    }
}

fn shares(interior: &NodeInterior, free: GpuSet, each: u32, pods: u32) -> Shares {
    let fitting = pods.min(free.len() as u32 / each.max(1));
    let Some(mut left) = interior.choose_gpus(free, (each * fitting) as usize).filter(|_| each > 0) else {
        return Shares::default();
    };
    if pods == 1 {
        return [left].into();
    }
    let order = interior.ring_order(left);
    if each == 1 {
        return order.into_iter().map(|gpu| GpuSet::EMPTY.with(gpu)).collect();
    }
    let mut shares: Vec<GpuSet> = Vec::with_capacity(fitting as usize);
    for _ in 0..fitting {
        let Some(share) = interior.choose_gpus(left, each as usize) else { break };
        left = left.without(share);
        shares.push(share);
    }
    shares.sort_by_key(|share| order.iter().position(|gpu| share.contains(*gpu)));
    shares.into()
}
