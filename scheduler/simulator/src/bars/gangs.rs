//! B2: gangs on the openb nodes with a leaf and spine network.

use muster_scheduler_core::{GangDemand, Ledger};
use serde::Serialize;

use crate::engine::{Options, SimulationError, simulate};
use crate::generate::gangs::{GangMix, LeafSpine, like_openb, openb_nodes, workload};
use crate::network::Network;
use crate::openb::Trace;
use crate::report::{GangReport, Report};
use crate::scheduler::ScheduleError;
use crate::workload::Workload;

/// Baselines that place gangs.
pub const GANG_BASELINES: [&str; 5] = ["random", "best-fit", "fgd", "volcano-tier", "kueue-tas"];

/// What is compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GangFigures {
    /// The baselines' reports, then muster's.
    pub reports: Vec<Report>,
    /// Partial gangs of muster; must be 0.
    pub partial_gangs: usize,
    /// The baseline with the least mean all-reduce time.
    pub best: String,
    /// Its mean predicted all-reduce time over muster's; the bar is 1.3.
    pub all_reduce_ratio: f64,
    /// The least 95th percentile of ring crossings between spines of any baseline over muster's, each at least 1; the
    /// bar is 2.
    pub crossings_ratio: f64,
    /// What no policy is likely to go below: every gang alone on the empty cluster, placed by core.
    pub alone: GangReport,
    /// Muster's utilisation less that baseline's, in points of a hundred; must not be below 0.
    pub utilisation_gain: f64,
}

/// The workload: gangs on the nodes of `trace`, or on nodes like them.
pub fn gang_workload(trace: Option<&Trace>, mix: &GangMix, seed: u64) -> Workload {
    let nodes = trace.map_or_else(|| like_openb(1213), |trace| openb_nodes(&trace.machines, &trace.models));
    workload(LeafSpine::default().over(nodes), mix, seed)
}

/// Runs the baselines and muster.
///
/// # Errors
/// [`SimulationError`].
pub fn b2(workload: &Workload, seed: u64) -> Result<GangFigures, SimulationError> {
    let options = Options { seed, ..Options::default() };
    let mut reports = Vec::new();
    for policy in GANG_BASELINES {
        reports.push(simulate(workload, policy, options)?);
    }
    let ours = simulate(workload, "muster", options)?;
    let time = |report: &&Report| report.gangs.all_reduce_mean;
    let best = reports.iter().min_by(|left, right| time(left).total_cmp(&time(right)));
    let crossings = reports.iter().map(|report| report.gangs.crossings_p95).min().unwrap_or(0);
    let (name, mean, utilisation) = best.map_or((String::new(), 0.0, 0.0), |best| {
        (best.policy.clone(), best.gangs.all_reduce_mean, best.utilisation)
    });
    Ok(GangFigures {
        partial_gangs: ours.partial_gangs,
        best: name,
        all_reduce_ratio: mean / ours.gangs.all_reduce_mean.max(1e-12),
        crossings_ratio: crossings.max(1) as f64 / ours.gangs.crossings_p95.max(1) as f64,
        alone: alone(workload)?,
        utilisation_gain: (ours.utilisation - utilisation) * 100.0,
        reports: reports.into_iter().chain([ours]).collect(),
    })
}

fn alone(workload: &Workload) -> Result<GangReport, SimulationError> {
    let mut ledger = Ledger::default();
    workload.cluster.nodes.iter().for_each(|node| ledger.set_node(node.clone()));
    let space = ledger.space();
    let network = Network::new(&workload.cluster)?;
    let mut costs = Vec::new();
    for job in workload.jobs.iter().filter(|job| job.all_reduce > 0) {
        let gang = job.gang();
        let demand = GangDemand::new(space, &gang, gang.waiting.len())
            .map_err(|waiting| ScheduleError::Topology { job: job.name.clone(), waiting })?
            .demand;
        if let Some(slots) = space.find(&demand) {
            costs.extend(network.cost(job.all_reduce, &slots, space, true));
        }
    }
    Ok(GangReport::of(&costs))
}
