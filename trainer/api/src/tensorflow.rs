//! `TFJob`.

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};

use crate::common::{ReplicaSpec, RunPolicy};
use crate::status::JobStatus;

/// What a `TFJob` should be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "kubeflow.org",
    version = "v1",
    kind = "TFJob",
    plural = "tfjobs",
    singular = "tfjob",
    namespaced,
    status = "JobStatus",
    schema = "disabled",
    derive = "PartialEq",
    doc = "Distributed training with TensorFlow."
)]
#[serde(rename_all = "camelCase")]
pub struct TFJobSpec {
    /// How the job runs and how it is cleaned up.
    #[serde(default)]
    pub run_policy: RunPolicy,
    /// Which workers must end well where no chief or master does; the first one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_policy: Option<SuccessPolicy>,
    /// `Chief` or `Master`, `Worker`, `PS` and `Evaluator` to their pods; keys are read in any case.
    pub tf_replica_specs: BTreeMap<String, ReplicaSpec>,
    /// Whether workers come and go while the job runs; each is then told of itself and of the parameter servers
    /// alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_dynamic_worker: Option<bool>,
}

/// Which workers must end well for the job to succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SuccessPolicy {
    /// The first one.
    #[serde(rename = "")]
    FirstWorker,
    /// Every one.
    AllWorkers,
    /// Anything else; the schema lets it pass, validation does not.
    #[serde(untagged)]
    Unknown(String),
}
