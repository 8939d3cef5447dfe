//! The custom resource definitions, beside the training operator's own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "what a test cannot go on without"
)]

mod crds;
mod runtime_crds;
