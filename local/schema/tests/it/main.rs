//! The crate against what a real Kubernetes 1.36 answered.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test stops where it fails and says why it is skipped"
)]

mod recorded;
