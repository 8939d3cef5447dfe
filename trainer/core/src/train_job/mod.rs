//! The rules of `TrainJob`: a job and its runtime become a JobSet, and the JobSet's state the job's.
//!
//! [`plan`] is one function from what is seen of a job to what is to be done; its [`Plan`] comes in stages that
//! may be cut short anywhere. `render` makes the JobSet, with one module for each framework's policy.
//!
//! # Where this departs from Kubeflow's trainer
//! * Checks that Kubeflow has in webhooks are made when a job is planned; a job that cannot run fails, with
//!   reason `TrainJobInvalid`. One whose runtime is not there yet waits, and events say so.
//! * A JobSet made here has no time to live of its own. It is deleted when its time is over *and* the job says
//!   that it has ended, so a job whose JobSet is gone is never run again by mistake.
//! * Restarts are remembered on the job: a JobSet that somebody deletes comes back with what is left of `maxRestarts`.
//! * A JobSet that exists is never rendered anew: of it only `suspend` and what JobSet lets change meanwhile follow
//!   the job and its runtime. What else was changed since is told.
//! * `trainer.env`, `trainer.image` and `trainer.resourcesPerNode` reach all nodes of an MPI job, not its
//!   launcher alone.
//! * An MPI job may have several groups of workers (`muster.dev/mpi-slots` in the runtime), and a PyTorch job may go on with
//!   fewer nodes (`muster.dev/min-nodes`).
//! * Progress comes from an annotation of the first node's pod, which the server that pods call writes for them.

mod budget;
mod elastic;
mod env;
mod group_state;
mod initializer;
mod jax;
mod made;
mod make;
mod mpi;
mod patches;
mod plan;
mod planner;
mod pod_group;
mod render;
mod runtime;
mod status_server;
mod torch;
mod torchtune;
mod validation;
mod xgboost;

pub use mpi::{hostfile_name, ssh_secret_name};
pub use plan::{
    Effect, JobSetChange, JobSetDeletion, Observed, Plan, SshKeys, Waiting, plan, plan_without_jobsets,
};
pub use render::{Rendered, render};
pub use runtime::{RuntimeKey, RuntimeScope, RuntimeSeen, runtime_of};
pub use status_server::{StatusServer, status_audience, status_path};
pub use validation::validate;
