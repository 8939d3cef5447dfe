//! The launcher as a program, with shell scripts as workers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod failure;
mod harness;
mod launch;
mod output;
mod signals;
