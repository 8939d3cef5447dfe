//! The figures that the scheduler is held to, each as data: what was measured, against what.

mod allocation;

pub use allocation::{AllocationRow, Openb, OpenbError, b1};
