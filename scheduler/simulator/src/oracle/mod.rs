//! B8: whether what the planner says of waiting jobs is true, checked by counting.
//!
//! The counting shares nothing with the planner: it knows free GPUs node by node and quota queue by queue, and tries
//! all placements. Reasons and counterfactuals are held against it; expected starts against the planner itself, asked
//! at every event from then on, and under first come, first served against a count of whole nodes.

mod naive;
mod scenario;
mod statements;
mod world;

use muster_scheduler_queue::job::JobId;
use muster_scheduler_queue::time::Time;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;

use crate::scheduler::ScheduleError;
use scenario::Scenario;
use world::World;

/// What came of the planner's statements.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct OracleFigures {
    /// Jobs that waited and were explained.
    pub jobs: usize,
    /// Counterfactuals that were checked.
    pub counterfactuals: usize,
    /// Expected starts that counting has confirmed, too.
    pub counted: usize,
    /// What was said and is not true, with the scenario; empty as it should be.
    pub false_statements: Vec<String>,
    /// Actual less expected start when jobs run for 50 to 100 % of their limits, in hundredths of the mean run time,
    /// ascending.
    pub start_errors: Vec<f64>,
}

impl OracleFigures {
    /// The start error that so many per cent of the jobs are at or below.
    pub fn start_error(&self, percent: usize) -> f64 {
        let last = self.start_errors.len().saturating_sub(1);
        self.start_errors.get(last * percent.min(100) / 100).copied().unwrap_or(0.0)
    }
}

/// Asks for explanations at the end of so many random scenarios, and checks each.
///
/// # Errors
/// [`ScheduleError`] when the planner does not know what it should.
pub fn b8(scenarios: usize, seed: u64) -> Result<OracleFigures, ScheduleError> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut figures = OracleFigures::default();
    for _ in 0..scenarios {
        let scenario = Scenario::random(&mut random);
        check(&World::of(&scenario)?, &mut figures)?;
    }
    figures.start_errors.sort_by(f64::total_cmp);
    Ok(figures)
}

fn check(world: &World<'_>, figures: &mut OracleFigures) -> Result<(), ScheduleError> {
    let scenario = world.scenario;
    let counted = scenario.can_be_counted().then(|| world.counted_starts());
    let exact = world.true_starts(|_| 10)?;
    let early = world.true_starts(|id| 5 + (id as i64 * 7) % 6)?;
    let mean =
        scenario.jobs.iter().map(|job| job.runs as f64).sum::<f64>() / scenario.jobs.len().max(1) as f64;
    let mut outlook = world.planner.outlook(Time(world.now), &world.space);
    for id in &world.waiting {
        let explained = outlook.explain(JobId(*id))?;
        let mut faults = world.faults_of_reason(*id, &explained);
        faults.extend(world.faults_of_counterfactuals(*id, &explained));
        let expected = explained.expected.map(|expected| expected.at.0);
        let starts = exact.get(id).copied();
        if expected != starts {
            faults.push(format!("it is expected to start at {expected:?}, and starts at {starts:?}"));
        }
        if let Some(counted) = &counted {
            figures.counted += 1;
            let starts = counted.get(id).copied();
            if expected != starts {
                faults
                    .push(format!("it is expected to start at {expected:?}, and by counting at {starts:?}"));
            }
        }
        figures.jobs += 1;
        figures.counterfactuals += explained.what_if.len();
        if let (Some(expected), Some(came)) = (expected, early.get(id)) {
            figures.start_errors.push((came - expected) as f64 / mean * 100.0);
        }
        figures.false_statements.extend(
            faults
                .into_iter()
                .map(|fault| format!("job {id}: {fault} ({:?}; {scenario:?})", explained.reason)),
        );
    }
    Ok(())
}
