//! The kube-scheduler extender: the wire protocol and the server in front of the ledger.

pub mod core;
pub mod plans;
pub mod server;
pub mod simulation;
pub mod wire;

pub use crate::core::ExtenderCore;
