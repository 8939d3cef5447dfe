//! The training kinds: their types, their labels and annotations, and their `CustomResourceDefinition`s. Nouns
//! only; the rules are in `muster-trainer-core`.
//!
//! [`train_job`] has those of `trainer.kubeflow.org`, and [`jobset`] the kind in which they run; the others are of
//! `kubeflow.org`. The types read what the definitions accept: replica types in any case, quantities written as numbers,
//! values that only validation rejects.

pub mod common;
mod crd;
mod jax;
pub mod jobset;
mod mpi;
pub mod names;
mod paddle;
mod pytorch;
pub mod schema;
pub mod status;
mod tensorflow;
pub mod train_job;
mod xgboost;

pub use common::{CleanPodPolicy, ReplicaSpec, RestartPolicy, RunPolicy, SchedulingPolicy};
pub use crd::crds;
pub use jax::{JAXJob, JAXJobSpec};
pub use mpi::{LauncherCreationPolicy, MpiImplementation, MpiJob, MpiJobSpec, V2 as MPI_V2};
pub use names::{annotation, label, managed_by};
pub use paddle::{PaddleElasticPolicy, PaddleJob, PaddleJobSpec};
pub use pytorch::{ElasticPolicy, PyTorchJob, PyTorchJobSpec, RendezvousSetting};
pub use status::{ConditionType, JobCondition, JobStatus, ReplicaStatus};
pub use tensorflow::{SuccessPolicy, TFJob, TFJobSpec};
pub use xgboost::{XGBoostJob, XGBoostJobSpec};
