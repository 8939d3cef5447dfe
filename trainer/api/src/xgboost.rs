//! `XGBoostJob`.

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};

use crate::common::{ReplicaSpec, RunPolicy};
use crate::status::JobStatus;

/// What an `XGBoostJob` should be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "kubeflow.org",
    version = "v1",
    kind = "XGBoostJob",
    plural = "xgboostjobs",
    singular = "xgboostjob",
    namespaced,
    status = "JobStatus",
    schema = "disabled",
    derive = "PartialEq",
    doc = "Distributed training with XGBoost or LightGBM."
)]
#[serde(rename_all = "camelCase")]
pub struct XGBoostJobSpec {
    /// How the job runs and how it is cleaned up.
    #[serde(default)]
    pub run_policy: RunPolicy,
    /// `Master` and `Worker` to their pods; keys are read in any case.
    pub xgb_replica_specs: BTreeMap<String, ReplicaSpec>,
}
