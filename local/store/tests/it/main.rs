//! Behaviour of the store as its callers see it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "the helpers of tests are tests too"
)]

mod concurrency;
mod crash;
mod faults;
mod history;
mod model;
mod restart;
mod support;
