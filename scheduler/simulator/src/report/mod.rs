//! What a simulation says: figures of the whole, by class of job, and over time.

mod plot;
mod recorder;
mod text;

use std::time::Duration;

use muster_scheduler_queue::time::{Milliseconds, Time};
use serde::Serialize;

use crate::network::GangCost;

pub use plot::{PlotError, bars_svg, curves_svg};
pub use recorder::Recorder;
pub use text::{classes_csv, curves_csv, json, summary_csv, table};

/// Waits of some jobs, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waits {
    /// Jobs that were started.
    pub started: usize,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: Milliseconds,
    /// 95 % waited no longer.
    pub p95: Milliseconds,
    /// 99 % waited no longer.
    pub p99: Milliseconds,
    /// The longest.
    pub max: Milliseconds,
}

impl Waits {
    /// Of these waits.
    pub fn of(mut waits: Vec<Milliseconds>) -> Self {
        waits.sort_unstable();
        let at = |share: f64| waits.get(rank(share, waits.len())).copied().unwrap_or(0);
        Self {
            started: waits.len(),
            mean: waits.iter().map(|wait| *wait as f64).sum::<f64>() / waits.len().max(1) as f64,
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

/// The index of a quantile among sorted values: the smallest that so many do not exceed.
fn rank(share: f64, count: usize) -> usize {
    ((share * count as f64).ceil() as usize).clamp(1, count.max(1)) - 1
}

/// Jobs of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassReport {
    /// The class.
    pub class: String,
    /// Jobs that came.
    pub jobs: usize,
    /// How long they waited for their first start.
    pub waits: Waits,
}

/// Gangs that talk and have more than one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GangReport {
    /// Starts that were measured.
    pub gangs: usize,
    /// Mean predicted seconds of an all-reduce.
    pub all_reduce_mean: f64,
    /// 95 % take no longer.
    pub all_reduce_p95: f64,
    /// Mean ring crossings at the highest level.
    pub crossings_mean: f64,
    /// 95 % have no more.
    pub crossings_p95: usize,
}

impl GangReport {
    /// Of these costs.
    pub fn of(costs: &[GangCost]) -> Self {
        let count = costs.len();
        if count == 0 {
            return Self::default();
        }
        let mut times: Vec<f64> = costs.iter().map(|cost| cost.all_reduce).collect();
        times.sort_by(f64::total_cmp);
        let mut crossings: Vec<usize> = costs.iter().map(|cost| cost.crossings).collect();
        crossings.sort_unstable();
        Self {
            gangs: count,
            all_reduce_mean: times.iter().sum::<f64>() / count as f64,
            all_reduce_p95: times[rank(0.95, count)],
            crossings_mean: crossings.iter().sum::<usize>() as f64 / count as f64,
            crossings_p95: crossings[rank(0.95, count)],
        }
    }
}

/// A moment on the curves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// When.
    pub at: Time,
    /// Share of the GPUs (or processors, when there are none) in use, 0 to 1.
    pub utilisation: f64,
    /// Share of the GPUs that are free and that the next pod cannot use, in expectation (FGD's measure).
    pub fragmentation: f64,
    /// Jobs that wait.
    pub waiting: usize,
    /// Mean age of those that wait, in seconds.
    pub mean_wait: f64,
}

/// The outcome of one policy on one workload.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The workload.
    pub workload: String,
    /// The policy.
    pub policy: String,
    /// The seed of what is random in the simulation.
    pub seed: u64,
    /// Jobs that came.
    pub jobs: usize,
    /// Jobs that ended.
    pub ended: usize,
    /// From the first submission to the last end, in milliseconds.
    pub makespan: Milliseconds,
    /// Mean share of GPUs (or processors) in use between the first submission and the last.
    pub utilisation: f64,
    /// Mean of the fragmentation curve.
    pub fragmentation: f64,
    /// All jobs' waits.
    pub waits: Waits,
    /// By class, in the order of their names.
    pub classes: Vec<ClassReport>,
    /// Gangs that talk over the network.
    pub gangs: GangReport,
    /// Gangs that were started with too few pods, or with room that was not free. Must be 0.
    pub partial_gangs: usize,
    /// Jobs stopped to make room, or by failing nodes.
    pub stopped: usize,
    /// The curves.
    pub samples: Vec<Sample>,
    /// How often the scheduler was asked.
    pub decisions: usize,
    /// How long it took for all of them; the only figure that differs from run to run.
    #[serde(skip)]
    pub deciding: Duration,
}

impl Report {
    /// Jobs started in a second of deciding.
    pub fn jobs_per_second(&self) -> f64 {
        self.waits.started as f64 / self.deciding.as_secs_f64().max(1e-9)
    }

    /// A class by name.
    pub fn class(&self, class: &str) -> Option<&ClassReport> {
        self.classes.iter().find(|report| report.class == class)
    }
}
