//! Synthetic gangs on a cluster of the openb nodes, or one like it, with a leaf and spine network laid over it.

use muster_scheduler_core::{GpuDemand, Node};
use muster_scheduler_queue::time::Time;
use muster_scheduler_topology::{Level, UplinkRule};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp, LogNormal};

use crate::generate::{PRODUCT, RACK, SPINE, labelled, node, pod};
use crate::openb::Machine;
use crate::workload::{Cluster, Job, Role, Workload};

/// Thousandths of a processor and MiB that each GPU comes with.
const PROCESSOR_PER_GPU: i64 = 4_000;
const MEMORY_PER_GPU: i64 = 16 << 10;

/// A leaf and spine network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeafSpine {
    /// Nodes at a leaf switch.
    pub nodes_per_leaf: usize,
    /// Leaf switches at a spine.
    pub leaves_per_spine: usize,
    /// Bandwidth into a leaf divided by that out of it.
    pub leaf_oversubscription: f64,
    /// The same of a spine.
    pub spine_oversubscription: f64,
    /// GB/s per direction of the network cards for each GPU of a node: 6.25 is two cards of 200 Gb/s for eight.
    pub network_per_gpu: f64,
}

impl Default for LeafSpine {
    fn default() -> Self {
        Self {
            nodes_per_leaf: 16,
            leaves_per_spine: 4,
            leaf_oversubscription: 2.0,
            spine_oversubscription: 4.0,
            network_per_gpu: 6.25,
        }
    }
}

impl LeafSpine {
    /// Lays the network over nodes in the order given; racks hold nodes of one kind as far as neighbours are alike.
    pub fn over(&self, nodes: impl IntoIterator<Item = Node>) -> Cluster {
        let place = |(index, node): (usize, Node)| {
            let leaf = index / self.nodes_per_leaf.max(1);
            let spine = leaf / self.leaves_per_spine.max(1);
            let node = labelled(node, RACK, format!("leaf-{leaf:03}"));
            labelled(node, SPINE, format!("spine-{spine:02}"))
        };
        let levels = vec![
            Level::new("spine", &[SPINE])
                .with_uplink(UplinkRule::oversubscribed(self.spine_oversubscription)),
            Level::new("leaf", &[RACK]).with_uplink(UplinkRule::oversubscribed(self.leaf_oversubscription)),
        ];
        let nodes = nodes.into_iter().enumerate().map(place).collect();
        Cluster { nodes, levels, network_per_gpu: Some(self.network_per_gpu) }
    }
}

/// What the GPUs of the 8-GPU nodes are taken for: the trace does not say what its models G2 and G3 are.
const UNDISCLOSED: &str = "NVIDIA-A100-SXM4-40GB";

/// The nodes of an openb list, those of one GPU model and size beside each other, as they are bought and installed.
/// The undisclosed models are taken for one with NVLink.
pub fn openb_nodes(machines: &[Machine], models: &[String]) -> Vec<Node> {
    let mut machines: Vec<&Machine> = machines.iter().collect();
    machines.sort_by_key(|machine| (machine.model, machine.devices));
    let made = |machine: &&Machine| {
        let [processor, memory] = machine.host;
        let plain = node(machine.name.clone(), processor, memory * 1000, machine.devices as u32);
        let model = models.get(machine.model).map_or("", String::as_str);
        labelled(plain, PRODUCT, if model.starts_with('G') { UNDISCLOSED } else { model })
    };
    machines.iter().map(made).collect()
}

/// Nodes in the proportions of the openb cluster, for where its list is not at hand: 8-GPU, 2-GPU and 4-GPU nodes.
pub fn like_openb(nodes: usize) -> Vec<Node> {
    let kind = |index: usize| match index * 100 / nodes.max(1) {
        0..52 => (96_000, 384 << 10, 8, UNDISCLOSED),
        52..95 => (104_000, 512 << 10, 2, "T4"),
        _ => (96_000, 384 << 10, 4, "V100M32"),
    };
    let made = |index: usize| {
        let (processor, memory, gpus, product) = kind(index);
        labelled(node(format!("node-{index:04}"), processor, memory * 1000, gpus), PRODUCT, product)
    };
    (0..nodes).map(made).collect()
}

/// What gangs are like.
#[derive(Debug, Clone, PartialEq)]
pub struct GangMix {
    /// How many jobs.
    pub jobs: usize,
    /// GPU work that arrives, as a share of what the cluster can do.
    pub load: f64,
    /// Mean run time in minutes; log-normal.
    pub mean_minutes: f64,
    /// Spread of the logarithm of run times.
    pub sigma: f64,
    /// Share of jobs that are single pods with less than a node's GPUs.
    pub single: f64,
    /// Declared run time over true run time; none for jobs that declare nothing.
    pub estimate: Option<f64>,
}

impl Default for GangMix {
    fn default() -> Self {
        Self { jobs: 3_000, load: 1.1, mean_minutes: 60.0, sigma: 1.0, single: 0.5, estimate: Some(1.5) }
    }
}

/// Workers of a gang and how often they occur, in per cent: powers of two mostly, as people choose them.
const WORKERS: [(u32, u32); 8] = [(2, 26), (4, 24), (6, 8), (8, 18), (12, 6), (16, 10), (32, 6), (64, 2)];
/// GPUs of a single pod, in per cent.
const SINGLE: [(u32, u32); 4] = [(1, 55), (2, 25), (4, 10), (8, 10)];
/// GPUs of each worker of a gang.
const PER_WORKER: [(u32, u32); 3] = [(8, 70), (2, 20), (4, 10)];
/// Megabytes that a gang sums up in a step: gradients of small to large models.
const MEGABYTES: [(u32, u32); 4] = [(100, 25), (500, 35), (1_500, 25), (7_000, 15)];

fn pick(table: &[(u32, u32)], random: &mut StdRng) -> u32 {
    let mut left = random.random_range(0..table.iter().map(|(_, weight)| weight).sum::<u32>());
    for (value, weight) in table {
        if left < *weight {
            return *value;
        }
        left -= weight;
    }
    table[table.len() - 1].0
}

/// Gangs of 2 to 64 workers and single pods, arriving at random (Poisson) at the rate that makes the load.
pub fn workload(cluster: Cluster, mix: &GangMix, seed: u64) -> Workload {
    let mut random = StdRng::seed_from_u64(seed);
    let mean = mix.mean_minutes * 60_000.0;
    // The mean of a log-normal distribution is exp(mu + sigma²/2).
    let runtimes = LogNormal::new(mean.ln() - mix.sigma * mix.sigma / 2.0, mix.sigma);
    let mut jobs = Vec::with_capacity(mix.jobs);
    for index in 0..mix.jobs {
        let single = random.random_bool(mix.single.clamp(0.0, 1.0));
        let (pods, gpus) = if single {
            (1, pick(&SINGLE, &mut random))
        } else {
            (pick(&WORKERS, &mut random), pick(&PER_WORKER, &mut random))
        };
        let all_reduce = if single { 0 } else { u64::from(pick(&MEGABYTES, &mut random)) << 20 };
        let runtime =
            runtimes.as_ref().map_or(mean, |runtimes| runtimes.sample(&mut random)).max(60_000.0) as i64;
        let class = match pods {
            1 => "single",
            2..8 => "gang-2-7",
            8..32 => "gang-8-31",
            _ => "gang-32+",
        };
        jobs.push(Job {
            name: format!("{class}-{index}"),
            user: format!("user-{}", random.random_range(0..20)),
            class: class.to_owned(),
            queue: "default".to_owned(),
            runtime,
            limit: mix.estimate.map(|factor| (runtime as f64 * factor) as i64),
            roles: vec![Role {
                pod: pod(
                    i64::from(gpus) * PROCESSOR_PER_GPU,
                    i64::from(gpus) * MEMORY_PER_GPU * 1000,
                    GpuDemand::Whole(gpus),
                ),
                pods,
            }],
            all_reduce,
            ..Job::default()
        });
    }
    jobs.shuffle(&mut random);
    spread_arrivals(&mut jobs, f64::from(cluster.gpus()), mix.load, &mut random);
    Workload { name: "gangs".to_owned(), cluster, queues: Vec::new(), jobs }
}

/// Gives jobs random arrival times such that work for `load` times `gpus` GPUs arrives.
pub(super) fn spread_arrivals(jobs: &mut [Job], gpus: f64, load: f64, random: &mut StdRng) {
    let work: f64 = jobs.iter().map(|job| job.gpus() as f64 / 1000.0 * job.runtime as f64).sum();
    let span = work / (gpus * load).max(1e-9);
    let gaps = Exp::new(jobs.len() as f64 / span.max(1.0));
    let mut at = 0.0;
    for job in jobs {
        at += gaps.as_ref().map_or(1.0, |gaps| gaps.sample(random));
        job.submitted = Time(at as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gangs_depend_on_the_seed_only_and_bring_the_load() {
        let cluster = LeafSpine::default().over(like_openb(200));
        let mix = GangMix { jobs: 2_000, ..GangMix::default() };
        let made = workload(cluster.clone(), &mix, 5);
        assert_eq!(made.jobs, workload(cluster.clone(), &mix, 5).jobs);
        assert_ne!(made.jobs, workload(cluster.clone(), &mix, 6).jobs);
        let work: f64 = made.jobs.iter().map(|job| job.gpus() as f64 / 1000.0 * job.runtime as f64).sum();
        let span = made.jobs.iter().map(|job| job.submitted.0).max().unwrap() as f64;
        let load = work / span / f64::from(cluster.gpus());
        assert!((0.95..1.3).contains(&load), "{load}");
        assert!(made.jobs.iter().any(|job| job.class == "gang-32+"));
    }

    #[test]
    fn the_overlay_names_leaves_and_spines() {
        let cluster =
            LeafSpine { nodes_per_leaf: 4, leaves_per_spine: 2, ..LeafSpine::default() }.over(like_openb(20));
        let labels: Vec<_> =
            cluster.nodes.iter().map(|node| (&node.labels[RACK], &node.labels[SPINE])).collect();
        assert_eq!((labels[0].0.as_str(), labels[0].1.as_str()), ("leaf-000", "spine-00"));
        assert_eq!((labels[19].0.as_str(), labels[19].1.as_str()), ("leaf-004", "spine-02"));
    }
}
