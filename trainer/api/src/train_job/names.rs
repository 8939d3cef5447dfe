//! Labels, annotations and fixed strings of training jobs on runtimes.

/// API group.
pub const GROUP: &str = "trainer.kubeflow.org";
/// API version.
pub const VERSION: &str = "v1alpha1";
/// Field manager of what the controller applies.
pub const FIELD_MANAGER: &str = "trainer";
/// Finalizer of runtimes that jobs use.
pub const RESOURCE_IN_USE: &str = "trainer.kubeflow.org/resource-in-use";
/// The container that trains.
pub const NODE: &str = "node";
/// The replicated job that launches an MPI program.
pub const LAUNCHER: &str = "launcher";
/// The replicated job, and its container, that fetches data.
pub const DATASET_INITIALIZER: &str = "dataset-initializer";
/// The replicated job, and its container, that fetches a model.
pub const MODEL_INITIALIZER: &str = "model-initializer";
/// The port by which nodes find each other.
pub const TRAINER_PORT: i32 = 29500;

/// Labels.
pub mod label {
    /// Of a runtime: its framework.
    pub const FRAMEWORK: &str = "trainer.kubeflow.org/framework";
    /// Of a replicated job's template: what it does, `trainer`, `dataset-initializer` or `model-initializer`.
    pub const ANCESTOR_STEP: &str = "trainer.kubeflow.org/trainjob-ancestor-step";
    /// Of a runtime: `deprecated` when it will go.
    pub const SUPPORT: &str = "trainer.kubeflow.org/support";
    /// Value of [`ANCESTOR_STEP`] of the nodes that train.
    pub const STEP_TRAINER: &str = "trainer";
}

/// Muster's own annotations.
pub mod annotation {
    /// Of the first training pod: how far it has come, as JSON with the fields of `status.trainerStatus`.
    pub const TRAINER_STATUS: &str = "muster.dev/trainer-status";
    /// Set by the user on a job whose runtime has the policy torch: with so many nodes it starts, and goes on when others
    /// are lost. `numNodes` is then the most that it has.
    pub const MIN_NODES: &str = "muster.dev/min-nodes";
    /// Set in a runtime with the policy mpi, on the template of a replicated job beside `node`: its pods are workers, too,
    /// as many as its `parallelism` says, and this many processes run in each.
    pub const MPI_SLOTS: &str = "muster.dev/mpi-slots";
    /// Of a job, and of its JobSet when it is made: how many restarts have been counted against `failurePolicy.maxRestarts`. A
    /// JobSet that is made anew has only the rest; who wants all of them again takes it from the job first.
    pub const RESTART_COUNT: &str = crate::annotation::RESTART_COUNT;
    /// Of pods that train: the certificate authority, PEM, of the server that takes their progress.
    pub const STATUS_SERVER_CA: &str = "muster.dev/trainer-status-ca";
}

/// Values of `spec.managedBy`.
pub mod managed_by {
    /// This controller is in charge; the same as no value.
    pub const TRAINER: &str = "trainer.kubeflow.org/trainjob-controller";
    /// Kueue's `MultiKueue` runs the job elsewhere.
    pub const MULTI_KUEUE: &str = "kueue.x-k8s.io/multikueue";
}

/// Types of conditions.
pub mod condition_type {
    /// The job is suspended.
    pub const SUSPENDED: &str = "Suspended";
    /// The job is complete.
    pub const COMPLETE: &str = "Complete";
    /// The job has failed for good.
    pub const FAILED: &str = "Failed";
    /// Pods wait for nodes, or to be made at all, and why; there only while they do. Muster's own.
    pub const PODS_WAITING: &str = "PodsWaiting";
}

/// Reasons of conditions.
pub mod reason {
    /// The job is suspended.
    pub const SUSPENDED: &str = "Suspended";
    /// The job is no longer suspended.
    pub const RESUMED: &str = "Resumed";
    /// The job names a runtime of a kind that this controller does not know.
    pub const RUNTIME_NOT_SUPPORTED: &str = "TrainingRuntimeNotSupported";
    /// The job took longer than it may.
    pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
    /// The job cannot run as it is written; Muster's own.
    pub const INVALID: &str = "TrainJobInvalid";
    /// The cluster does not serve `JobSet`s; Muster's own.
    pub const JOBSET_NOT_INSTALLED: &str = "JobSetNotInstalled";
    /// The runtime is not there yet; Muster's own.
    pub const RUNTIME_NOT_FOUND: &str = "TrainingRuntimeNotFound";
}
