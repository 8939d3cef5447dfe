//! The extender protocol, version 1: what kube-scheduler sends and what it takes as an answer.

pub mod answer;
pub mod request;
mod scan;

pub use answer::{FilterAnswer, Passed, Refused, Victim, Victims};
pub use request::{
    BindRequest, Candidate, FilterRequest, Offered, PodIdentity, PreemptRequest, RequestError,
};
pub use scan::ScanError;
