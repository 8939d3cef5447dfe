//! The reconcilers of the training kinds: they see, let `muster-trainer-core` plan, and carry the plan out.
//!
//! [`Options`] → [`Service::run`]. All a service takes is a `kube::Client`; it needs nothing that a Kubernetes
//! from 1.30 on does not do. Every kind of [`muster_trainer_core::KINDS`] gets a watch of its jobs and one each of their pods and
//! services; groups and autoscalers, of which few jobs have any, are read when a job wants one.
//!
//! [`train_job`] has the services for jobs on runtimes, and [`jobset`] that of JobSets, for clusters without one.
//!
//! The controller may be stopped between any two requests: what it must remember is written to the job first
//! (with the version it has read, so that a stale view changes nothing), objects have names that follow from the
//! job, and pods are deleted by uid.

mod caller;
mod carry_out;
mod children;
mod events;
mod expectations;
pub mod jobset;
mod kept;
mod kinds;
mod mpi;
mod owned;
mod reconcile;
pub mod rendezvous;
mod report;
mod service;
mod ssh_keys;
pub mod train_job;

pub use service::{Options, Service};
