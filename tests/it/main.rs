//! The whole system as people meet it: the program `muster`, `kubectl`, and the Python clients, against clusters
//! that each test starts for itself and that leave nothing behind.

#![expect(clippy::expect_used, clippy::panic, reason = "a test ends at the first surprise")]

mod command_line;
mod dashboard;
mod faults;
mod harness;
mod install;
mod kubectl;
mod main_job;
mod python;
mod readme;
mod training_jobs;
mod transcript;
mod transcript_differences;
