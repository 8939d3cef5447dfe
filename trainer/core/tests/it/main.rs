//! The rules of training jobs, against a model of a cluster.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "what a test cannot go on without"
)]

mod jobset;
mod kinds;
mod laws;
mod lives;
mod mpi;
mod objects;
mod restarts;
mod rules;
mod simulation;
mod train_job;
mod validation;
mod world;
