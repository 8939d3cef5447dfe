//! Runtimes: how trainings of a kind run.

use kube::CustomResource;
use serde::{Deserialize, Serialize};

use super::patch::TemplateMetadata;
use crate::jobset::JobSetSpec;

/// How trainings of a kind run, in one namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "trainer.kubeflow.org",
    version = "v1alpha1",
    kind = "TrainingRuntime",
    plural = "trainingruntimes",
    singular = "trainingruntime",
    namespaced,
    schema = "disabled",
    derive = "PartialEq",
    doc = "How trainings of a kind run, in one namespace."
)]
#[serde(rename_all = "camelCase", default)]
pub struct TrainingRuntimeSpec {
    /// What the framework needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ml_policy: Option<MlPolicy>,
    /// How the pods are scheduled as a gang.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_group_policy: Option<PodGroupPolicy>,
    /// The JobSet.
    pub template: JobSetTemplate,
}

/// The same for all namespaces; the two kinds differ in their scope only.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "trainer.kubeflow.org",
    version = "v1alpha1",
    kind = "ClusterTrainingRuntime",
    plural = "clustertrainingruntimes",
    singular = "clustertrainingruntime",
    schema = "disabled",
    derive = "PartialEq",
    doc = "How trainings of a kind run, in every namespace."
)]
#[serde(transparent)]
pub struct ClusterTrainingRuntimeSpec(pub TrainingRuntimeSpec);

/// The JobSet of a runtime.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobSetTemplate {
    /// Labels and annotations of the JobSet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// What it is.
    pub spec: JobSetSpec,
}

/// What the framework needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MlPolicy {
    /// How many nodes train; 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_nodes: Option<i32>,
    /// torchrun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torch: Option<Torch>,
    /// MPI by ssh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mpi: Option<Mpi>,
    /// JAX.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jax: Option<Framework>,
    /// XGBoost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xgboost: Option<Framework>,
    /// Flux.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flux: Option<Flux>,
}

/// A framework without settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Framework {}

/// Settings of torchrun.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Torch {
    /// Containers beside the trainer that get its variables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env_injection: Option<EnvInjection>,
}

/// Containers beside the trainer that get its variables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvInjection {
    /// Them, by replicated job.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<EnvInjectionTarget>,
}

/// Containers of a replicated job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvInjectionTarget {
    /// The replicated job.
    pub job_name: String,
    /// Its containers.
    pub container_names: Vec<String>,
}

/// Settings of MPI.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mpi {
    /// Processes per node; 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_proc_per_node: Option<i32>,
    /// `OpenMPI`, the only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mpi_implementation: Option<String>,
    /// Where the ssh keys are in containers; `/root/.ssh` when absent.
    #[serde(rename = "sshAuthMountPath", skip_serializing_if = "Option::is_none")]
    pub ssh_auth_mount_path: Option<String>,
    /// Whether the launcher trains, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_launcher_as_node: Option<bool>,
}

/// Settings of Flux.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Flux {
    /// Processes per node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_proc_per_node: Option<i32>,
}

/// How the pods are scheduled as a gang.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodGroupPolicy {
    /// By the coscheduling plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coscheduling: Option<Coscheduling>,
    /// By Volcano.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volcano: Option<Volcano>,
}

/// Settings of the coscheduling plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Coscheduling {
    /// Seconds the gang may wait for its members; 60 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_timeout_seconds: Option<i32>,
}

/// Settings of Volcano.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volcano {
    /// How near the pods must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_topology: Option<NetworkTopology>,
}

/// How near the pods must be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkTopology {
    /// `hard` or `soft`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The highest tier that they may span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highest_tier_allowed: Option<i64>,
}
