//! B4: small jobs and huge gangs.

use serde::Serialize;

use crate::engine::{Options, SimulationError, simulate};
use crate::report::Report;
use crate::workload::Workload;

/// Policies that are compared.
pub const BACKFILL_POLICIES: [&str; 6] =
    ["fifo", "strict-fifo", "best-effort-fifo", "easy", "conservative", "muster"];

/// Factors of declared over true run times; the last declares nothing.
pub const ESTIMATES: [Option<f64>; 4] = [Some(1.0), Some(2.0), Some(10.0), None];

/// One workload under all policies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackfillFigures {
    /// Declared over true run time.
    pub estimate: Option<f64>,
    /// Reports in the order of [`BACKFILL_POLICIES`].
    pub reports: Vec<Report>,
    /// Longest wait of huge gangs over that under strict FIFO; must not be above 1.
    pub huge_wait_ratio: f64,
    /// Mean wait of small jobs over that under best-effort FIFO; must not be above 1.1.
    pub small_wait_ratio: f64,
    /// Utilisation less the better of the two, in points of a hundred; must not be below 0.
    pub utilisation_gain: f64,
}

/// Runs all policies on a workload whose jobs declare `estimate` times their run time.
///
/// # Errors
/// [`SimulationError`].
pub fn b4(workload: &Workload, estimate: Option<f64>) -> Result<BackfillFigures, SimulationError> {
    let mut workload = workload.clone();
    for job in &mut workload.jobs {
        job.limit = estimate.map(|factor| (job.runtime as f64 * factor) as i64);
    }
    let options = Options { network: false, ..Options::default() };
    let mut reports = Vec::new();
    for policy in BACKFILL_POLICIES {
        reports.push(simulate(&workload, policy, options)?);
    }
    let of = |policy: &str| reports.iter().find(|report| report.policy == policy);
    let wait = |policy: &str, class: &str| {
        of(policy).and_then(|report| report.class(class)).map(|class| class.waits)
    };
    let longest = |policy| wait(policy, "huge").map_or(0.0, |waits| waits.max as f64);
    let mean = |policy| wait(policy, "small").map_or(0.0, |waits| waits.mean);
    let used = |policy| of(policy).map_or(0.0, |report| report.utilisation);
    Ok(BackfillFigures {
        estimate,
        huge_wait_ratio: longest("muster") / longest("strict-fifo").max(1.0),
        small_wait_ratio: mean("muster") / mean("best-effort-fifo").max(1.0),
        utilisation_gain: (used("muster") - used("strict-fifo").max(used("best-effort-fifo"))) * 100.0,
        reports,
    })
}
