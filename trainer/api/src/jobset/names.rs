//! Labels, annotations and fixed strings of `JobSet`.

/// API group.
pub const GROUP: &str = "jobset.x-k8s.io";
/// API version.
pub const VERSION: &str = "v1alpha2";
/// Value of `spec.managedBy` by which a set is the JobSet controller's; the same as none.
pub const CONTROLLER: &str = "jobset.sigs.k8s.io/jobset-controller";
/// `groupName` of a replicated job that names none.
pub const DEFAULT_GROUP: &str = "default";

/// Labels of jobs and their pods, and with the same names annotations.
pub mod label {
    /// Name of the set.
    pub const JOBSET_NAME: &str = "jobset.sigs.k8s.io/jobset-name";
    /// Uid of the set.
    pub const JOBSET_UID: &str = "jobset.sigs.k8s.io/jobset-uid";
    /// Name of the replicated job.
    pub const REPLICATED_JOB_NAME: &str = "jobset.sigs.k8s.io/replicatedjob-name";
    /// How many jobs it has.
    pub const REPLICATED_JOB_REPLICAS: &str = "jobset.sigs.k8s.io/replicatedjob-replicas";
    /// How many jobs the set has.
    pub const GLOBAL_REPLICAS: &str = "jobset.sigs.k8s.io/global-replicas";
    /// Index of the job within its replicated job.
    pub const JOB_INDEX: &str = "jobset.sigs.k8s.io/job-index";
    /// Index of the job within the set.
    pub const JOB_GLOBAL_INDEX: &str = "jobset.sigs.k8s.io/job-global-index";
    /// SHA-1 of the job's namespace and name: the same on all pods of a job.
    pub const JOB_KEY: &str = "jobset.sigs.k8s.io/job-key";
    /// The group that the replicated job counts to.
    pub const GROUP_NAME: &str = "jobset.sigs.k8s.io/group-name";
    /// How many jobs that group has.
    pub const GROUP_REPLICAS: &str = "jobset.sigs.k8s.io/group-replicas";
    /// Index of the job within that group.
    pub const JOB_GROUP_INDEX: &str = "jobset.sigs.k8s.io/job-group-index";
    /// How often the set had restarted when the job was created.
    pub const RESTART_ATTEMPT: &str = "jobset.sigs.k8s.io/restart-attempt";
    /// How often this very job had restarted by itself when it was created.
    pub const JOB_RESTART_ATTEMPT: &str = "jobset.sigs.k8s.io/job-restart-attempt";
    /// Address of the coordinator.
    pub const COORDINATOR: &str = "jobset.sigs.k8s.io/coordinator";
}

/// Types of conditions.
pub mod condition_type {
    /// The set is complete.
    pub const COMPLETED: &str = "Completed";
    /// The set has failed.
    pub const FAILED: &str = "Failed";
    /// The jobs are suspended.
    pub const SUSPENDED: &str = "Suspended";
    /// Groups that must wait for others have not all been created.
    pub const STARTUP_IN_PROGRESS: &str = "StartupPolicyInProgress";
    /// All groups have been created.
    pub const STARTUP_COMPLETED: &str = "StartupPolicyCompleted";
}

/// Reasons of conditions and events.
pub mod reason {
    /// The set is complete.
    pub const ALL_JOBS_COMPLETED: &str = "AllJobsCompleted";
    /// A job failed, and there is no failure policy.
    pub const FAILED_JOBS: &str = "FailedJobs";
    /// A job failed once more than restarts are allowed.
    pub const REACHED_MAX_RESTARTS: &str = "ReachedMaxRestarts";
    /// A job failed, and a rule says that the set fails.
    pub const FAIL_JOB_SET: &str = "FailJobSetFailurePolicyAction";
    /// All jobs are recreated.
    pub const RESTART_JOB_SET: &str = "RestartJobSetFailurePolicyAction";
    /// All jobs are recreated at no charge.
    pub const RESTART_JOB_SET_FREE: &str = "RestartJobSetAndIgnoreMaxRestartsFailurePolicyAction";
    /// A job is recreated.
    pub const RESTART_JOB: &str = "RestartJobFailurePolicyAction";
    /// A job is recreated at no charge.
    pub const RESTART_JOB_FREE: &str = "RestartJobAndIgnoreMaxRestartsFailurePolicyAction";
    /// The jobs are suspended.
    pub const SUSPENDED_JOBS: &str = "SuspendedJobs";
    /// The jobs are no longer suspended.
    pub const RESUME_JOBS: &str = "ResumeJobs";
    /// A job could not be created.
    pub const JOB_CREATION_FAILED: &str = "JobCreationFailed";
    /// The set cannot be carried out as it is written.
    pub const INVALID: &str = "InvalidJobSet";
    /// Groups that must wait for others have not all been created.
    pub const STARTUP_IN_PROGRESS: &str = "InOrderStartupPolicyInProgress";
    /// All groups have been created.
    pub const STARTUP_COMPLETED: &str = "InOrderStartupPolicyCompleted";
}
