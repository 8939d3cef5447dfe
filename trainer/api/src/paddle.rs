//! `PaddleJob`.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2::MetricSpec;
use kube::CustomResource;
use serde::{Deserialize, Serialize};

use crate::common::{ReplicaSpec, RunPolicy};
use crate::status::JobStatus;

/// What a `PaddleJob` should be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "kubeflow.org",
    version = "v1",
    kind = "PaddleJob",
    plural = "paddlejobs",
    singular = "paddlejob",
    namespaced,
    status = "JobStatus",
    schema = "disabled",
    derive = "PartialEq",
    doc = "Distributed training with PaddlePaddle."
)]
#[serde(rename_all = "camelCase")]
pub struct PaddleJobSpec {
    /// How the job runs and how it is cleaned up.
    #[serde(default)]
    pub run_policy: RunPolicy,
    /// A number of workers that an autoscaler sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elastic_policy: Option<PaddleElasticPolicy>,
    /// `Master` and `Worker` to their pods; keys are read in any case.
    pub paddle_replica_specs: BTreeMap<String, ReplicaSpec>,
}

/// A number of workers that may change while the job runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PaddleElasticPolicy {
    /// Fewest workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<i32>,
    /// Most workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<i32>,
    /// How often Paddle's launcher restarts the processes of its pod (`PADDLE_MAX_RESTART`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<i32>,
    /// Metrics by which a `HorizontalPodAutoscaler` sets the number of workers; none without them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricSpec>,
}
