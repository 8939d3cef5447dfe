//! `JAXJob`.

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};

use crate::common::{ReplicaSpec, RunPolicy};
use crate::status::JobStatus;

/// What a `JAXJob` should be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "kubeflow.org",
    version = "v1",
    kind = "JAXJob",
    plural = "jaxjobs",
    singular = "jaxjob",
    namespaced,
    status = "JobStatus",
    schema = "disabled",
    derive = "PartialEq",
    doc = "Distributed training with JAX."
)]
#[serde(rename_all = "camelCase")]
pub struct JAXJobSpec {
    /// How the job runs and how it is cleaned up.
    #[serde(default)]
    pub run_policy: RunPolicy,
    /// `Worker` to its pods; the key is read in any case.
    pub jax_replica_specs: BTreeMap<String, ReplicaSpec>,
}
