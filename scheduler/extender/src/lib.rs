//! The kube-scheduler extender: gangs on a cluster that keeps its own scheduler.
//!
//! [`wire`] is the protocol, [`core`] the state machine, [`server`] the HTTPS server around it. [`simulation`]
//! proves the state machine by many schedules with faults; [`client`] and [`figures`] measure it.

pub mod client;
pub mod core;
pub mod figures;
mod objects;
pub mod plans;
pub mod server;
pub mod simulation;
pub mod wire;

pub use crate::core::ExtenderCore;
