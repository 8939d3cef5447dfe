//! Traces in virtual time, and schedules with every fault.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use muster_scheduler_extender::simulation::{Report, run_binder_schedules, run_schedules};
use muster_scheduler_simulator::bars::{
    BACKFILL_COMPARED, BackfillFigures, ESTIMATES, Openb, b1, b2, b3, b4, gang_optimum, gang_workload,
};
use muster_scheduler_simulator::generate::gangs::GangMix;
use muster_scheduler_simulator::generate::{gavel, mixed};
use muster_scheduler_simulator::oracle::b8;

/// Seeds of the published runs.
const OPENB_SEEDS: u64 = 10;
/// Scenarios in which waiting jobs are explained.
const SCENARIOS: usize = 10_000;
/// The most that small jobs may wait, as a multiple of what they wait under best-effort FIFO.
pub(super) const SMALL_WAIT: f64 = 1.1;
/// Schedules of each front end.
const SCHEDULES: u64 = 100_000;

fn traces() -> Result<PathBuf> {
    let shared = std::env::var_os("MUSTER_SHARED")
        .context("MUSTER_SHARED does not name the folder with the traces")?;
    Ok(PathBuf::from(shared).join("upstream/traces"))
}

/// Makespans of Kueue's generators in virtual seconds, and decisions a second at its large scale.
pub(super) fn kueue() -> Result<Vec<f64>> {
    let folder = traces()?.join("kueue");
    let run = |name: &str| -> Result<_> {
        let yaml = fs::read_to_string(folder.join(format!("{name}-generator.yaml")))?;
        Ok(b3(name, &yaml, "muster")?)
    };
    Ok(vec![run("baseline")?.makespan, run("tas")?.makespan, run("large-scale")?.workloads_per_second])
}

/// Broken promises of both front ends.
pub(super) fn schedules() -> Result<Vec<f64>> {
    let violations = |report: Report| -> Result<f64> {
        ensure!(report.schedules >= SCHEDULES, "only {} schedules were run", report.schedules);
        Ok(report.violations.len() as f64)
    };
    Ok(vec![violations(run_schedules(SCHEDULES, 1))?, violations(run_binder_schedules(SCHEDULES, 1))?])
}

/// What was said of waiting jobs and is not true, counterfactuals that were checked, and how far off expected starts
/// are when jobs run for 50 to 100 % of their limits, in hundredths of the mean run time.
pub(super) fn explanations() -> Result<Vec<f64>> {
    let figures = b8(SCENARIOS, 1)?;
    ensure!(figures.counterfactuals >= SCENARIOS, "only {} counterfactuals", figures.counterfactuals);
    let errors = [1, 50, 99].map(|percent| figures.start_error(percent));
    Ok([vec![figures.false_statements.len() as f64, figures.counterfactuals as f64], errors.to_vec()]
        .concat())
}

/// GPU allocation at 130 % arrivals: mean of the traces, least margin over the published FGD, time a pod.
pub(super) fn openb() -> Result<Vec<f64>> {
    let openb = Openb::read(&traces()?)?;
    let rows = b1(&openb, &[], &["muster"], OPENB_SEEDS);
    ensure!(!rows.is_empty(), "there are no traces");
    let mean = rows.iter().map(|row| row.at_130).sum::<f64>() / rows.len() as f64;
    let margins = rows.iter().filter_map(|row| Some(row.at_130 - row.published?));
    let decision = rows.iter().map(|row| row.decision.as_secs_f64() * 1e6).sum::<f64>() / rows.len() as f64;
    Ok(vec![mean, margins.fold(f64::INFINITY, f64::min), decision])
}

/// Gangs on leaves and spines against the best baseline, and the worst of small ones against the best there is.
pub(super) fn gangs() -> Result<Vec<f64>> {
    let openb = Openb::read(&traces()?)?;
    let mix = GangMix { jobs: 3000, ..GangMix::default() };
    let figures = b2(&gang_workload(openb.trace("default"), &mix, 1), 1)?;
    let optimum = gang_optimum(300, 1)?;
    let worst = optimum.iter().find(|row| row.policy == "muster").context("no row of our own")?.worst_ratio;
    Ok(vec![
        figures.partial_gangs as f64,
        figures.all_reduce_ratio,
        figures.crossings_ratio,
        figures.utilisation_gain,
        worst,
    ])
}

/// The worst over all estimates of: huge gangs' longest wait over strict FIFO's, small jobs' mean wait over
/// best-effort FIFO's, utilisation over both. First for synthetic small jobs, then for those of Gavel's traces, and of
/// these how many workloads there are and in how many no schedule at all could meet the first two.
pub(super) fn backfill() -> Result<Vec<f64>> {
    let mix = mixed::HugeGangs::default();
    let run = |small| -> Result<Vec<BackfillFigures>> {
        let workload = mixed::workload("mixed", small, &mix, 7);
        ESTIMATES.iter().map(|estimate| Ok(b4(&workload, *estimate, &BACKFILL_COMPARED)?)).collect()
    };
    let synthetic = run(mixed::small_jobs(2000, 3))?;
    let mut traced = Vec::new();
    let (mut traces, mut out_of_reach) = (0, 0);
    for trace in gavel_traces()? {
        let figures = run(gavel::jobs(&fs::read_to_string(&trace)?, None)?)?;
        traces += 1;
        out_of_reach += usize::from(figures.iter().any(|one| one.least_small_wait_ratio > SMALL_WAIT));
        traced.extend(figures);
    }
    let counts = [traces, out_of_reach].map(|count| count as f64);
    Ok(worst(&synthetic).into_iter().chain(worst(&traced)).chain(counts).collect())
}

/// Gavel's traces that have enough jobs for a twentieth of them to be some.
fn gavel_traces() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for file in fs::read_dir(traces()?.join("gavel_msr"))? {
        let path = file?.path();
        let is_trace = path.extension().is_some_and(|extension| extension == "trace");
        if is_trace && fs::read_to_string(&path)?.lines().count() >= 100 {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn worst(figures: &[BackfillFigures]) -> [f64; 3] {
    let most = |of: fn(&BackfillFigures) -> f64| figures.iter().map(of).fold(0.0, f64::max);
    let gain = figures.iter().map(|one| one.utilisation_gain).fold(f64::INFINITY, f64::min);
    [most(|one| one.huge_wait_ratio), most(|one| one.small_wait_ratio), gain]
}
