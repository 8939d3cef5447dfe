//! The node against the embedded API server, with real processes.

mod cluster;
mod lifecycle;
mod specification;
