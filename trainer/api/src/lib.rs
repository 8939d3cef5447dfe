//! The training kinds of `kubeflow.org/v1`: their types, their labels and annotations, and their
//! `CustomResourceDefinition`s. Nouns only; the rules are in `muster-trainer-core`.
//!
//! The types read what the definitions accept: replica types in any case, quantities written as numbers, values
//! that only validation rejects.

pub mod common;
mod crd;
mod jax;
pub mod names;
mod paddle;
mod pytorch;
pub mod schema;
pub mod status;
mod tensorflow;
mod xgboost;

pub use common::{CleanPodPolicy, ReplicaSpec, RestartPolicy, RunPolicy, SchedulingPolicy};
pub use crd::crds;
pub use jax::{JAXJob, JAXJobSpec};
pub use names::{annotation, label, managed_by};
pub use paddle::{PaddleElasticPolicy, PaddleJob, PaddleJobSpec};
pub use pytorch::{ElasticPolicy, PyTorchJob, PyTorchJobSpec, RendezvousSetting};
pub use status::{ConditionType, JobCondition, JobStatus, ReplicaStatus};
pub use tensorflow::{SuccessPolicy, TFJob, TFJobSpec};
pub use xgboost::{XGBoostJob, XGBoostJobSpec};
