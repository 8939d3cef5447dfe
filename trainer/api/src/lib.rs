//! The training kinds of `kubeflow.org/v1`: their types, their labels and annotations, and their
//! `CustomResourceDefinition`s. Nouns only; the rules are in `muster-trainer-core`.
//!
//! [`PyTorchJob`] is the one kind so far. The types read what the definitions accept: replica types in any
//! case, quantities written as numbers, values that only validation rejects.

pub mod common;
mod crd;
mod mpi;
pub mod names;
mod pytorch;
pub mod schema;
pub mod status;

pub use common::{CleanPodPolicy, ReplicaSpec, RestartPolicy, RunPolicy, SchedulingPolicy};
pub use crd::crds;
pub use mpi::{LauncherCreationPolicy, MpiImplementation, MpiJob, MpiJobSpec, V2 as MPI_V2};
pub use names::{annotation, label, managed_by};
pub use pytorch::{ElasticPolicy, PyTorchJob, PyTorchJobSpec, RendezvousSetting};
pub use status::{ConditionType, JobCondition, JobStatus, ReplicaStatus};
