//! The controller of `JobSet`, for clusters where no other is installed.

mod reconcile;
mod service;

pub use service::{Options, Service};
