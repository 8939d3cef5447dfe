//! Checkpoints as a trainer uses them: saved and loaded by many ranks, cut short by kills, damaged, in folders and in
//! object stores.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod damage;
mod kills;
mod models;
mod resharding;
#[cfg(feature = "s3")]
mod s3;
mod samples;
mod saving;
mod stores;
