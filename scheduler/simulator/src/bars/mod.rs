//! The figures that the scheduler is held to, each as data: what was measured, against what.

mod allocation;
mod backfill;
mod gangs;
mod kueue;
mod optimum;
mod reach;

pub use allocation::{AllocationRow, Openb, OpenbError, b1};
pub use backfill::{BACKFILL_COMPARED, BACKFILL_POLICIES, BackfillFigures, ESTIMATES, b4};
pub use gangs::{GANG_BASELINES, GangFigures, b2, gang_workload};
pub use kueue::{KueueError, KueueFigures, b3};
pub use optimum::{OptimumRow, gang_optimum};
