//! The simulator against traces small enough to work out by hand, and against itself.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says why it skips")]

mod bars;
mod engine;
mod openb;
mod oracle;
mod output;

use muster_scheduler_core::GpuDemand;
use muster_scheduler_queue::time::Time;
use muster_scheduler_simulator::generate::{node, pod};
use muster_scheduler_simulator::workload::{Cluster, Job, Role, Workload};

/// A job of pods with whole GPUs; times in seconds.
fn job(name: &str, at: i64, runtime: i64, pods: u32, gpus: u32) -> Job {
    Job {
        name: name.to_owned(),
        user: "ada".to_owned(),
        class: name.to_owned(),
        queue: "default".to_owned(),
        submitted: Time(at * 1000),
        runtime: runtime * 1000,
        limit: Some(runtime * 1000),
        roles: vec![Role { pod: pod(1000, 0, GpuDemand::Whole(gpus)), pods }],
        ..Job::default()
    }
}

/// Nodes with these many GPUs.
fn workload(gpus: &[u32], jobs: Vec<Job>) -> Workload {
    let made = |(index, gpus): (usize, &u32)| node(format!("node-{index}"), 64_000, 64_000_000, *gpus);
    let nodes = gpus.iter().enumerate().map(made).collect();
    Workload {
        name: "by-hand".to_owned(),
        cluster: Cluster { nodes, ..Cluster::default() },
        jobs,
        ..Workload::default()
    }
}
