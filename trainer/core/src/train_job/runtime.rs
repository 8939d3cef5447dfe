//! Which runtime a job names, and what is seen of it.

use muster_trainer_api::train_job::names::GROUP;
use muster_trainer_api::train_job::{TrainJob, TrainingRuntimeSpec};

/// Where a runtime is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuntimeScope {
    /// `ClusterTrainingRuntime`.
    Cluster,
    /// `TrainingRuntime`, in this namespace.
    Namespace(String),
}

/// A runtime by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuntimeKey {
    /// Where it is.
    pub scope: RuntimeScope,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for RuntimeKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.scope {
            RuntimeScope::Cluster => write!(formatter, "ClusterTrainingRuntime {}", self.name),
            RuntimeScope::Namespace(namespace) => {
                write!(formatter, "TrainingRuntime {namespace}/{}", self.name)
            }
        }
    }
}

/// What is seen of the runtime that a job names.
#[derive(Debug, Clone, Copy)]
pub enum RuntimeSeen<'a> {
    /// It is there.
    Found(&'a TrainingRuntimeSpec),
    /// It is not there (yet).
    Missing,
}

/// The runtime that a job names; nothing if it is of a kind that is none.
pub fn runtime_of(job: &TrainJob) -> Option<RuntimeKey> {
    let reference = &job.spec.runtime_ref;
    if !matches!(reference.api_group.as_deref(), None | Some("" | GROUP)) {
        return None;
    }
    let scope = match reference.kind.as_deref() {
        None | Some("" | "ClusterTrainingRuntime") => RuntimeScope::Cluster,
        Some("TrainingRuntime") => {
            RuntimeScope::Namespace(job.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()))
        }
        Some(_) => return None,
    };
    Some(RuntimeKey { scope, name: reference.name.clone() })
}
