//! Groups of ranks that are threads, through a library that stands for NCCL (`tests/fake_nccl.c`), and how the real one
//! and the driver are found.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking, and the library that stands for NCCL is called through pointers"
)]

mod collectives;
mod device;
mod failures;
mod fake;
mod groups;
mod host_queue;
mod loading;
mod watching;

#[path = "../../examples/gpu_check.rs"]
#[allow(dead_code, unreachable_pub, reason = "a program, of which the tests call the inner part")]
mod gpu_check;
