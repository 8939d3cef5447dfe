//! The node against the embedded API server, with real processes.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests fail by panicking and say what they skip"
)]

mod cluster;
mod failures;
mod hooks;
mod lifecycle;
mod observation;
mod services;
mod specification;
mod streams;
mod vanishing;
mod volumes;
