//! Labels, annotations and fixed strings of the training kinds.

/// API group of the training kinds.
pub const GROUP: &str = "kubeflow.org";
/// API version of the training kinds.
pub const VERSION: &str = "v1";

/// Labels that every pod and service of a training job carries.
pub mod label {
    /// The controller of the job's kind, such as `pytorchjob-controller`.
    pub const OPERATOR_NAME: &str = "training.kubeflow.org/operator-name";
    /// Name of the job.
    pub const JOB_NAME: &str = "training.kubeflow.org/job-name";
    /// Replica type in lower case.
    pub const REPLICA_TYPE: &str = "training.kubeflow.org/replica-type";
    /// Index of the pod within its replica type, from 0.
    pub const REPLICA_INDEX: &str = "training.kubeflow.org/replica-index";
    /// `master` on the one pod that leads the job; `launcher` or `worker` on the pods of an `MPIJob` of `v2beta1`.
    pub const JOB_ROLE: &str = "training.kubeflow.org/job-role";
    /// Muster's own, on pods: the gang generation a pod was created for. See
    /// [`annotation::GANG_GENERATION`](super::annotation::GANG_GENERATION).
    pub const GANG_GENERATION: &str = "muster.dev/gang-generation";
}

/// Muster's own annotations on a job.
///
/// All but those that are set by the user are written by the controller, in one update, before
/// any pod of the restart is deleted; so a crash at any point is followed by exactly one restart, and the
/// counts outlive the pods they count.
pub mod annotation {
    /// Set by the user: `gang` or `pod`, what is restarted when one pod fails. PyTorchJobs with an elastic policy
    /// and TFJobs with dynamic workers default to `pod`, all others to `gang`.
    pub const RESTART_SCOPE: &str = "muster.dev/restart-scope";
    /// The generation of pods that is current; absent means 0. Pods of an older generation are retired: they
    /// are deleted, and their failures count no more.
    pub const GANG_GENERATION: &str = "muster.dev/gang-generation";
    /// How many restarts the job's own failures have caused; counted against `runPolicy.backoffLimit`.
    pub const RESTART_COUNT: &str = "muster.dev/restart-count";
    /// How many restarts evictions, preemptions and lost nodes have caused; counted against nothing.
    pub const INFRASTRUCTURE_RESTART_COUNT: &str = "muster.dev/infrastructure-restart-count";
    /// How many restarts followed each other quickly; the wait before a restart doubles with it.
    pub const RESTART_STREAK: &str = "muster.dev/restart-streak";
    /// When the latest restart was decided (RFC 3339).
    pub const LAST_RESTART_TIME: &str = "muster.dev/last-restart-time";
    /// On pods: how many pods the job wanted when this one was created. With restart scope `gang` a job that is
    /// resized restarts, for its ranks count each other.
    pub const GANG_SIZE: &str = "muster.dev/gang-size";
    /// Set by the user on an `MPIJob`: `sshd` or `agent`, how `mpirun` starts processes on the workers. When absent
    /// the controller writes down what holds: `sshd` for `v2beta1`, `agent` for `v1`.
    pub const REMOTE_SHELL: &str = "muster.dev/remote-shell";
    /// Set by the user on an `MPIJob`: with `true` it starts anew, free, when the cluster takes its launcher or evicts a
    /// worker (an eviction, a preemption, a lost node). Without it the job fails then, as upstream's does.
    pub const REQUEUE: &str = "muster.dev/requeue";
    /// Uids of the failed pods that have been dealt with, joined by commas: with restart scope `pod` those whose
    /// restart has been counted, and those that the job does without.
    pub const RESTARTING_PODS: &str = "muster.dev/restarting-pods";
}

/// Values of `runPolicy.managedBy`.
pub mod managed_by {
    /// This controller is in charge; the same as no value.
    pub const TRAINING_OPERATOR: &str = "kubeflow.org/training-operator";
    /// The MPI operator's value: this controller is in charge of `MPIJob`s with it, too.
    pub const MPI_OPERATOR: &str = "kubeflow.org/mpi-operator";
    /// Kueue's `MultiKueue` runs the job elsewhere.
    pub const MULTI_KUEUE: &str = "kueue.x-k8s.io/multikueue";
}
