//! The whole system as people meet it: the program `muster`, `kubectl`, and the Python clients, against clusters
//! that each test starts for itself and that leave nothing behind.

#![expect(clippy::expect_used, clippy::panic, reason = "a test ends at the first surprise")]

mod autoscaling;
mod batch;
mod command_line;
mod creating;
mod dashboard;
mod faults;
mod harness;
mod install;
mod kinds;
mod kubectl;
mod main_job;
mod mpi;
mod python;
mod readme;
mod shell;
mod streams;
mod training_jobs;
mod transcript;
mod transcript_differences;
mod workloads;
