//! The node against the embedded API server, with real processes.

mod cluster;
mod failures;
mod hooks;
mod lifecycle;
mod observation;
mod specification;
mod volumes;
