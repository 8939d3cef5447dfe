//! `MPIJob`, as both operators know it: `v1` of the training operator and `v2beta1` of the MPI operator.
//!
//! Both share the resource `mpijobs.kubeflow.org`, and a cluster can hold one definition of it. Ours serves both
//! versions without conversion and stores `v1`: each version has the fields of both, so neither loses what the
//! other has written, and only `v2beta1` fills in the defaults of its own fields. So an object tells by these
//! fields which version it was written in ([`MpiJobSpec::is_v2`]).

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};

use crate::common::{CleanPodPolicy, ReplicaSpec, RunPolicy};
use crate::status::JobStatus;

/// Version of the MPI operator.
pub const V2: &str = "v2beta1";

/// What an `MPIJob` should be, with the fields of both versions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "kubeflow.org",
    version = "v1",
    kind = "MPIJob",
    root = "MpiJob",
    plural = "mpijobs",
    singular = "mpijob",
    namespaced,
    status = "JobStatus",
    schema = "disabled",
    derive = "PartialEq",
    doc = "A parallel program that is started by mpirun."
)]
#[serde(rename_all = "camelCase")]
pub struct MpiJobSpec {
    /// How the job runs and how it is cleaned up.
    #[serde(default)]
    pub run_policy: RunPolicy,
    /// `Launcher` and `Worker` to their pods; keys are read in any case.
    pub mpi_replica_specs: BTreeMap<String, ReplicaSpec>,
    /// Processes per worker in the hostfile; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots_per_worker: Option<i32>,
    /// `v2beta1`: whether the launcher takes part as the first host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_launcher_as_worker: Option<bool>,
    /// `v2beta1`: folder of the SSH keys; `/root/.ssh` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_auth_mount_path: Option<String>,
    /// `v2beta1`: when the launcher is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launcher_creation_policy: Option<LauncherCreationPolicy>,
    /// `v2beta1`: whose `mpirun` the launcher runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mpi_implementation: Option<MpiImplementation>,
    /// `v1`: name of the container that runs the program; the one named `mpi`, else the first, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_container: Option<String>,
    /// `v1`: what happens to the pods of a finished job; wins over the run policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean_pod_policy: Option<CleanPodPolicy>,
}

impl MpiJobSpec {
    /// Whether the job was written as `v2beta1`, whose definition fills in fields that `v1` leaves absent.
    pub fn is_v2(&self) -> bool {
        self.ssh_auth_mount_path.is_some()
            || self.launcher_creation_policy.is_some()
            || self.mpi_implementation.is_some()
            || self.run_launcher_as_worker.is_some()
    }
}

/// When the launcher is created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LauncherCreationPolicy {
    /// With the workers.
    AtStartup,
    /// Once all workers are ready.
    WaitForWorkersReady,
    /// Anything else; the schema lets it pass, validation does not.
    #[serde(untagged)]
    Unknown(String),
}

/// Whose `mpirun` the launcher runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MpiImplementation {
    /// Open MPI, 4 (ORTE) and 5 (PRRTE).
    OpenMPI,
    /// Intel MPI.
    Intel,
    /// MPICH and others with its process manager Hydra.
    #[serde(rename = "MPICH")]
    Mpich,
    /// Anything else; validation rejects it.
    #[serde(untagged)]
    Unknown(String),
}
