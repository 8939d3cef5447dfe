//! The training kinds: their types, their labels and annotations, and their `CustomResourceDefinition`s. Nouns
//! only; the rules are in `muster-trainer-core`.
//!
//! [`PyTorchJob`] is the one kind of `kubeflow.org/v1` so far; [`train_job`] has those of
//! `trainer.kubeflow.org`, and [`jobset`] the kind in which they run. The types read what the definitions accept:
//! replica types in any case, quantities written as numbers, values that only validation rejects.

pub mod common;
mod crd;
pub mod jobset;
pub mod names;
mod pytorch;
pub mod schema;
pub mod status;
pub mod train_job;

pub use common::{CleanPodPolicy, ReplicaSpec, RestartPolicy, RunPolicy, SchedulingPolicy};
pub use crd::crds;
pub use names::{annotation, label, managed_by};
pub use pytorch::{ElasticPolicy, PyTorchJob, PyTorchJobSpec, RendezvousSetting};
pub use status::{ConditionType, JobCondition, JobStatus, ReplicaStatus};
