//! The recorded answers of a real server, and laws that hold for every kind.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests fail and speak like tests")]

mod laws;
mod recordings;
mod updates;
mod workloads;
