//! `TrainJob`, `TrainingRuntime` and `ClusterTrainingRuntime` (`trainer.kubeflow.org/v1alpha1`).
//!
//! A runtime says how trainings of a kind run, as a JobSet with a policy of its framework; a job names one and
//! says what differs.

mod definitions;
pub mod names;
mod patch;
mod runtime;
mod status;

use k8s_openapi::api::core::v1::{EnvVar, LocalObjectReference, ResourceRequirements};
use kube::CustomResource;
use serde::{Deserialize, Serialize};

pub use definitions::crds;
pub use names::{annotation, condition_type, label, managed_by, reason};
pub use patch::{
    ContainerPatch, JobPatch, JobSetPatch, JobSetSpecPatch, JobSpecPatch, PodPatch, PodSpecPatch,
    ReplicatedJobPatch, RuntimePatch, RuntimeSpecPatch, TemplateMetadata,
};
pub use runtime::{
    ClusterTrainingRuntime, ClusterTrainingRuntimeSpec, Coscheduling, EnvInjection, EnvInjectionTarget, Flux,
    Framework, JobSetTemplate, MlPolicy, Mpi, NetworkTopology, PodGroupPolicy, Torch, TrainingRuntime,
    TrainingRuntimeSpec, Volcano,
};
pub use status::{JobStatus, Metric, TrainJobStatus, TrainerStatus};

/// A training on a runtime.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "trainer.kubeflow.org",
    version = "v1alpha1",
    kind = "TrainJob",
    plural = "trainjobs",
    singular = "trainjob",
    namespaced,
    status = "TrainJobStatus",
    schema = "disabled",
    derive = "PartialEq",
    doc = "A training on a runtime."
)]
#[serde(rename_all = "camelCase")]
pub struct TrainJobSpec {
    /// The runtime.
    pub runtime_ref: RuntimeRef,
    /// What is fetched before the training starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initializer: Option<Initializer>,
    /// What differs from the runtime in the nodes that train.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trainer: Option<Trainer>,
    /// Changes of the runtime for this job, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runtime_patches: Vec<RuntimePatch>,
    /// Whether the job is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Seconds from the start or the latest resumption after which the job fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<i64>,
    /// The controller in charge, see [`managed_by`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
}

/// Names a runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeRef {
    /// Its name.
    pub name: String,
    /// Its API group; ours when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_group: Option<String>,
    /// Its kind; `ClusterTrainingRuntime` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// What is fetched before the training starts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Initializer {
    /// The data to train on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<Source>,
    /// The model to start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Source>,
}

/// Where something is fetched from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Source {
    /// Its address, such as `hf://owner/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_uri: Option<String>,
    /// Variables of the initializer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// A Secret whose keys the initializer gets as variables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalObjectReference>,
}

/// What differs from the runtime in the nodes that train.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Trainer {
    /// Their image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Their command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Further variables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// How many nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_nodes: Option<i32>,
    /// Resources of each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources_per_node: Option<ResourceRequirements>,
    /// Processes in each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_proc_per_node: Option<i32>,
}
