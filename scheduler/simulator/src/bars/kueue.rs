//! B3: the workloads of Kueue's performance tests in virtual time.

use serde::Serialize;

use crate::engine::{Options, SimulationError, simulate};
use crate::generate::kueue::{GeneratorError, workload};
use crate::report::Report;

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum KueueError {
    /// The file.
    #[error(transparent)]
    Generator(#[from] GeneratorError),
    /// The simulation.
    #[error(transparent)]
    Simulation(#[from] SimulationError),
}

/// A generator's outcome.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KueueFigures {
    /// The report.
    pub report: Report,
    /// Seconds from the first submission to the last end.
    pub makespan: f64,
    /// Seconds below which nobody can go: the last arrival, or the work over the quota.
    pub bound: f64,
    /// Workloads started in a second of deciding.
    pub workloads_per_second: f64,
}

/// Replays a generator file under a policy. The clock starts at 0, when the generator does.
///
/// # Errors
/// [`KueueError`].
pub fn b3(name: &str, yaml: &str, policy: &str) -> Result<KueueFigures, KueueError> {
    let workload = workload(name, yaml)?;
    let options = Options { network: false, ..Options::default() };
    let report = simulate(&workload, policy, options)?;
    let first = workload.jobs.iter().map(|job| job.submitted.0).min().unwrap_or(0);
    let last_end = workload.jobs.iter().map(|job| job.submitted.0 + job.runtime).max().unwrap_or(0);
    let work: f64 = workload
        .jobs
        .iter()
        .flat_map(|job| job.roles.iter().map(move |role| (job, role)))
        .map(|(job, role)| (role.pod.requests.get("cpu") * i64::from(role.pods) * job.runtime) as f64)
        .sum();
    let quota: i64 =
        workload.queues.iter().flat_map(|queue| queue.quotas.values()).map(|quota| quota.nominal).sum();
    let bound = (work / quota.max(1) as f64).max(last_end as f64) / 1000.0;
    Ok(KueueFigures {
        makespan: (report.makespan + first) as f64 / 1000.0,
        bound,
        workloads_per_second: report.jobs_per_second(),
        report,
    })
}
