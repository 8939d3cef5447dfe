//! The launcher as a program, with shell scripts as workers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod elastic;
mod failure;
mod harness;
mod launch;
mod output;
#[path = "../../../rendezvous/tests/it/running.rs"]
mod running;
mod signals;
