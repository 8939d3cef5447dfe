//! The controllers against an API server in the same process; the tests play the kubelet.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "what a test cannot go on without"
)]

mod cluster;
mod jobs;
mod kinds;
mod mpi;
mod runtimes;
