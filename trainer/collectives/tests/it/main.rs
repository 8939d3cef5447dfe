//! Collectives between real ranks: threads with a communicator each, and processes that get killed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::float_cmp,
    reason = "a test fails by panicking"
)]

mod certificates;
mod failures;
mod forming;
mod groups;
mod mismatches;
mod movements;
mod reductions;
mod samples;
mod soak;
mod support;
mod tls;
