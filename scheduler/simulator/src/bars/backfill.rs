//! B4: small jobs and huge gangs.

use serde::Serialize;

use crate::bars::reach::least_small_wait;
use crate::engine::{Options, SimulationError, simulate};
use crate::report::Report;
use crate::workload::Workload;

/// Policies that are compared.
pub const BACKFILL_POLICIES: [&str; 6] =
    ["fifo", "strict-fifo", "best-effort-fifo", "easy", "conservative", "muster"];

/// Those of them that the figures need.
pub const BACKFILL_COMPARED: [&str; 3] = ["strict-fifo", "best-effort-fifo", "muster"];

/// Factors of declared over true run times; the last declares nothing.
pub const ESTIMATES: [Option<f64>; 4] = [Some(1.0), Some(2.0), Some(10.0), None];

/// One workload under several policies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackfillFigures {
    /// Declared over true run time.
    pub estimate: Option<f64>,
    /// Reports in the order of the policies.
    pub reports: Vec<Report>,
    /// Longest wait of huge gangs over that under strict FIFO; must not be above 1.
    pub huge_wait_ratio: f64,
    /// Mean wait of small jobs over that under best-effort FIFO; must not be above 1.1.
    pub small_wait_ratio: f64,
    /// What no schedule can have a lower ratio of small jobs' waits than, however well it knows the future, if it keeps
    /// every huge gang's wait within the longest under strict FIFO and stops nobody.
    pub least_small_wait_ratio: f64,
    /// Utilisation less the better of the two, in points of a hundred; must not be below 0.
    pub utilisation_gain: f64,
}

/// Runs `policies`, [`BACKFILL_COMPARED`] among them, on a workload whose jobs declare `estimate` times their run time.
///
/// # Errors
/// [`SimulationError`].
pub fn b4(
    workload: &Workload,
    estimate: Option<f64>,
    policies: &[&str],
) -> Result<BackfillFigures, SimulationError> {
    let mut workload = workload.clone();
    for job in &mut workload.jobs {
        job.limit = estimate.map(|factor| (job.runtime as f64 * factor) as i64);
    }
    let options = Options { network: false, ..Options::default() };
    let mut reports = Vec::new();
    for policy in policies {
        reports.push(simulate(&workload, policy, options)?);
    }
    let of = |policy: &str| reports.iter().find(|report| report.policy == policy);
    let wait = |policy: &str, class: &str| {
        of(policy).and_then(|report| report.class(class)).map(|class| class.waits)
    };
    let longest = |policy| wait(policy, "huge").map_or(0.0, |waits| waits.max as f64);
    let mean = |policy| wait(policy, "small").map_or(0.0, |waits| waits.mean);
    let used = |policy| of(policy).map_or(0.0, |report| report.utilisation);
    let least = least_small_wait(&workload, longest("strict-fifo") as i64);
    Ok(BackfillFigures {
        estimate,
        huge_wait_ratio: longest("muster") / longest("strict-fifo").max(1.0),
        small_wait_ratio: mean("muster") / mean("best-effort-fifo").max(1.0),
        least_small_wait_ratio: least / mean("best-effort-fifo").max(1.0),
        utilisation_gain: (used("muster") - used("strict-fifo").max(used("best-effort-fifo"))) * 100.0,
        reports,
    })
}
