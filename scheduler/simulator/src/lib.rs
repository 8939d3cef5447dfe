//! Drives the planning core through traces in virtual time.
//!
//! [`engine::simulate`] runs a [`workload::Workload`] under a policy by name and gives a [`report::Report`];
//! [`openb`] is the fragmentation benchmark, where single pods arrive and never leave; [`bars`] are the figures
//! that the scheduler is held to; [`oracle`] checks by counting what the planner says of waiting jobs. The same input gives the same output, but for the time that decisions take.

pub mod bars;
pub mod catalogue;
pub mod engine;
pub mod failures;
pub mod generate;
pub mod network;
pub mod openb;
pub mod oracle;
pub mod report;
pub mod scheduler;
pub mod workload;
