//! `PyTorchJob`.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2::MetricSpec;
use kube::CustomResource;
use serde::{Deserialize, Serialize};

use crate::common::{ReplicaSpec, RunPolicy};
use crate::status::JobStatus;

/// What a `PyTorchJob` should be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "kubeflow.org",
    version = "v1",
    kind = "PyTorchJob",
    plural = "pytorchjobs",
    singular = "pytorchjob",
    namespaced,
    status = "JobStatus",
    schema = "disabled",
    derive = "PartialEq",
    doc = "Distributed training with PyTorch."
)]
#[serde(rename_all = "camelCase")]
pub struct PyTorchJobSpec {
    /// How the job runs and how it is cleaned up.
    #[serde(default)]
    pub run_policy: RunPolicy,
    /// Elastic training by torchrun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elastic_policy: Option<ElasticPolicy>,
    /// `Master` and `Worker` to their pods; keys are read in any case.
    pub pytorch_replica_specs: BTreeMap<String, ReplicaSpec>,
    /// Processes per pod: `auto`, `cpu`, `gpu` or a number; `auto` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nproc_per_node: Option<String>,
}

/// Elastic training: the number of workers may change while the job runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ElasticPolicy {
    /// Fewest workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<i32>,
    /// Most workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<i32>,
    /// Rendezvous backend (`PET_RDZV_BACKEND`); `c10d` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdzv_backend: Option<String>,
    /// Port of the rendezvous; the job's own port when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdzv_port: Option<i32>,
    /// Host of the rendezvous; the first worker when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdzv_host: Option<String>,
    /// Id of the rendezvous (`PET_RDZV_ID`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdzv_id: Option<String>,
    /// Further rendezvous settings (`PET_RDZV_CONF`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rdzv_conf: Vec<RendezvousSetting>,
    /// Whether torchrun starts a rendezvous of its own in each pod (`PET_STANDALONE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standalone: Option<bool>,
    /// Processes per pod; deprecated in favour of `spec.nprocPerNode`.
    #[serde(rename = "nProcPerNode", skip_serializing_if = "Option::is_none")]
    pub nproc_per_node: Option<i32>,
    /// How often torchrun restarts its worker group (`PET_MAX_RESTARTS`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<i32>,
    /// Metrics by which a `HorizontalPodAutoscaler` sets the number of workers; none without them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricSpec>,
}

/// One entry of `PET_RDZV_CONF`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RendezvousSetting {
    /// Name of the setting.
    pub key: String,
    /// Its value.
    pub value: String,
}
