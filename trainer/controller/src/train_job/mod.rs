//! The controllers of `TrainJob` and of the runtimes that jobs name.

mod first_pods;
mod progress;
mod reconcile;
mod runtimes;
mod service;
pub mod status_server;
mod without_jobsets;

pub use service::{Options, Service};
