//! The network that gangs are measured on: predicted all-reduce time and ring crossings.

use std::collections::BTreeMap;

use muster_scheduler_core::{Slots, Space};
use muster_scheduler_queue::job::JobId;
use muster_scheduler_topology::cost::{Collective, CostModel, Hosts, JobTraffic, Load, Slot};
use muster_scheduler_topology::import::labels::{PRODUCT, entries};
use muster_scheduler_topology::interior::{Accelerator, NodeInterior};
use muster_scheduler_topology::{
    BuildError, Level, LevelIndex, NodeEntry, SharedNames, Topology, order_ranks, ring_crossings,
};

use crate::workload::Cluster;

/// Part of its time that a gang spends in all-reduce, for the load that it puts on shared links.
const TALKING: f64 = 0.3;

/// What a gang's places mean for its workers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GangCost {
    /// Predicted seconds of one all-reduce, with the traffic of those that run.
    pub all_reduce: f64,
    /// How often the ring of its ranks goes from one domain of the highest level below the cluster to another.
    pub crossings: usize,
}

/// Links, hosts and what runs on them.
#[derive(Debug, Clone)]
pub struct Network {
    topology: Topology,
    hosts: Hosts,
    load: Load,
    traffic: BTreeMap<JobId, JobTraffic>,
}

impl Network {
    /// The network of a cluster.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn new(cluster: &Cluster) -> Result<Self, BuildError> {
        let levels = Level::between_cluster_and_host(cluster.levels.iter().cloned());
        let named: Vec<_> = cluster.nodes.iter().map(|node| (node.name.as_str(), &node.labels)).collect();
        let entries: Vec<NodeEntry<'_>> = entries(&levels, &named)
            .into_iter()
            .zip(&cluster.nodes)
            .map(|(entry, node)| NodeEntry {
                gpus: node.gpu_slots,
                network: cluster.network_per_gpu.map(|each| each * f64::from(node.gpu_slots.max(1))),
                ..entry
            })
            .collect();
        let topology = Topology::build(levels, &entries, SharedNames::Distinct)?;
        let mut kinds: Vec<(Option<&String>, u32)> = Vec::new();
        let mut kind_of = Vec::new();
        for node in &cluster.nodes {
            let kind = (node.labels.get(PRODUCT), node.gpu_slots);
            kind_of.push(kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
                kinds.push(kind);
                kinds.len() - 1
            }));
        }
        let interiors = kinds.into_iter().map(|(product, gpus)| {
            let accelerator = product.map_or(Accelerator::PCIE, |product| Accelerator::of_product(product));
            NodeInterior::standard(accelerator, gpus as usize)
        });
        let hosts = Hosts::new(&topology, interiors.collect(), |node| kind_of[node]);
        let load = Load::idle(&topology);
        Ok(Self { topology, hosts, load, traffic: BTreeMap::new() })
    }

    /// A gang starts: what its places cost it, and its traffic from now on. Nothing for jobs that do not talk or
    /// have one pod.
    pub fn start(
        &mut self,
        id: JobId,
        bytes: u64,
        slots: &Slots,
        space: &Space,
        ordered: bool,
    ) -> Option<GangCost> {
        let ranks = self.ranks(bytes, slots, space, ordered)?;
        let cost = self.cost_of(bytes, &ranks)?;
        let model = CostModel::new(&self.topology, &self.hosts).with_load(&self.load);
        let traffic = model.traffic(Collective::AllReduce, bytes, &ranks, TALKING).ok()?;
        self.load.add(&traffic);
        self.traffic.insert(id, traffic);
        Some(cost)
    }

    /// What places would cost a gang that starts now.
    pub fn cost(&self, bytes: u64, slots: &Slots, space: &Space, ordered: bool) -> Option<GangCost> {
        self.cost_of(bytes, &self.ranks(bytes, slots, space, ordered)?)
    }

    fn cost_of(&self, bytes: u64, ranks: &[Slot]) -> Option<GangCost> {
        let model = CostModel::new(&self.topology, &self.hosts).with_load(&self.load);
        let all_reduce = model.predict(Collective::AllReduce, bytes, ranks).ok()?.seconds;
        Some(GangCost { all_reduce, crossings: ring_crossings(&self.topology, LevelIndex(1), ranks) })
    }

    /// The GPUs of a gang in the order of its ranks.
    fn ranks(&self, bytes: u64, slots: &Slots, space: &Space, ordered: bool) -> Option<Vec<Slot>> {
        if bytes == 0 || slots.0.len() < 2 {
            return None;
        }
        let mut ranks: Vec<Slot> = Vec::new();
        for slot in &slots.0 {
            let position = self.topology.position_named(&space.node(slot.node)?.name)?;
            ranks.extend(slot.devices.iter().map(|gpu| Slot { position, gpu: u16::from(*gpu) }));
        }
        if ordered {
            let order = order_ranks(&self.topology, &self.hosts, &ranks, None).ok()?;
            ranks = order.into_iter().map(|index| ranks[index as usize]).collect();
        }
        Some(ranks)
    }

    /// A gang ended.
    pub fn end(&mut self, id: JobId) {
        if let Some(traffic) = self.traffic.remove(&id) {
            self.load.remove(&traffic);
        }
    }
}
