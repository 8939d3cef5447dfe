//! The binder: watches nodes and pods, plans gangs on the ledger, writes the plan down, binds the pods. And the
//! [`extender`], for clusters whose kube-scheduler goes on binding.
//!
//! [`objects`] reads what the API server has; [`planner`] turns it into decisions and touches nothing; [`service`]
//! carries them out with a `kube::Client` and cannot tell the embedded cluster from a real one.

mod attempt;
mod bind;
mod certificates;
mod claims;
pub mod dashboard;
mod evict;
pub mod extender;
mod gates;
mod groups;
mod metrics;
pub mod objects;
mod observe;
pub mod picture;
pub mod places;
mod plan;
pub mod planner;
pub mod service;
mod status;
mod tell;

pub use service::{Options, Service};
