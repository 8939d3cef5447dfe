//! Many small jobs and a few huge gangs: what backfill is for.

use muster_scheduler_core::GpuDemand;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal};

use crate::generate::gangs::spread_arrivals;
use crate::generate::{node, pod};
use crate::workload::{Cluster, Job, Role, Workload};

const GPUS: u32 = 8;

/// A mix of small jobs, such as those of a trace, with huge gangs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HugeGangs {
    /// Nodes of 8 GPUs.
    pub nodes: usize,
    /// Share of jobs that are huge.
    pub share: f64,
    /// Nodes of a huge gang, as a share of all: from, to.
    pub size: (f64, f64),
    /// Mean run time of a huge gang in hours; log-normal.
    pub mean_hours: f64,
    /// GPU work that arrives, as a share of what the cluster can do.
    pub load: f64,
    /// Declared run time over true run time; none for jobs that declare nothing.
    pub estimate: Option<f64>,
}

impl Default for HugeGangs {
    fn default() -> Self {
        Self { nodes: 64, share: 0.05, size: (0.25, 0.5), mean_hours: 0.5, load: 1.0, estimate: Some(1.0) }
    }
}

/// Small jobs of 1 to 8 GPUs: log-normal run times with a median of half an hour and a long tail.
pub fn small_jobs(count: usize, seed: u64) -> Vec<Job> {
    let mut random = StdRng::seed_from_u64(seed);
    let runtimes = LogNormal::new((30.0 * 60_000.0_f64).ln(), 1.3);
    let mut jobs = Vec::with_capacity(count);
    for index in 0..count {
        let gpus = 1 << random.random_range(0..4);
        let runtime = runtimes.as_ref().map_or(1.8e6, |runtimes| runtimes.sample(&mut random));
        let family = random.random_range(0..12);
        jobs.push(job(
            format!("family-{family}-{index}"),
            "small",
            1,
            gpus,
            runtime.clamp(60_000.0, 1e8) as i64,
        ));
    }
    jobs
}

fn job(name: String, class: &str, pods: u32, gpus: u32, runtime: i64) -> Job {
    Job {
        user: format!("user-{}", name.len() % 7),
        name,
        class: class.to_owned(),
        queue: "default".to_owned(),
        runtime,
        roles: vec![Role { pod: pod(i64::from(gpus) * 4000, 0, GpuDemand::Whole(gpus)), pods }],
        ..Job::default()
    }
}

/// Mixes huge gangs among `jobs`, in their order, and gives all of them new arrival times.
pub fn workload(name: &str, jobs: Vec<Job>, mix: &HugeGangs, seed: u64) -> Workload {
    let mut random = StdRng::seed_from_u64(seed);
    let mean = mix.mean_hours * 3_600_000.0;
    let runtimes = LogNormal::new(mean.ln() - 0.125, 0.5);
    let mut all = Vec::with_capacity(jobs.len() + jobs.len() / 10);
    for small in jobs {
        if random.random_bool((mix.share / (1.0 - mix.share)).clamp(0.0, 1.0)) {
            let size = random.random_range(mix.size.0..=mix.size.1.max(mix.size.0)) * mix.nodes as f64;
            let runtime = runtimes.as_ref().map_or(mean, |runtimes| runtimes.sample(&mut random));
            all.push(job(format!("huge-{}", all.len()), "huge", (size as u32).max(2), GPUS, runtime as i64));
        }
        all.push(small);
    }
    all.retain(|job| job.pods() as usize <= mix.nodes);
    for job in &mut all {
        job.limit = mix.estimate.map(|factor| (job.runtime as f64 * factor) as i64);
    }
    let gpus = mix.nodes as f64 * f64::from(GPUS);
    spread_arrivals(&mut all, gpus, mix.load, &mut random);
    let made = |index| node(format!("node-{index:03}"), 64_000, 512_000, GPUS);
    let cluster = Cluster { nodes: (0..mix.nodes).map(made).collect(), ..Cluster::default() };
    Workload { name: name.to_owned(), cluster, queues: Vec::new(), jobs: all }
}
