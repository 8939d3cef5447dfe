//! Labels and annotations of batch jobs.

/// What the names of all annotations of batch jobs begin with.
pub const PREFIX: &str = "muster.dev/batch-";
/// Label of a job and its pods: the number by which people name the job, unique in its namespace. The tasks of an array
/// have the numbers from this one on.
pub const ID: &str = "muster.dev/batch-id";
/// Annotation with the name that a person gave the job.
pub const NAME: &str = "muster.dev/batch-name";
/// Annotation with the name of the person who submitted the job.
pub const USER: &str = "muster.dev/batch-user";
/// Annotation with the tasks of an array, such as `0-99%10`.
pub const ARRAY: &str = "muster.dev/batch-array";
/// Annotation with what the job still waits for, such as `afterok:17`; what has come is taken out, so that it counts also
/// when the job that was waited for is gone.
pub const DEPENDENCY: &str = "muster.dev/batch-dependency";
/// Annotation with why the job will never start by itself.
pub const REASON: &str = "muster.dev/batch-reason";
/// Annotation of a job that a person holds: it is not started when what it waits for has come.
pub const HOLD: &str = "muster.dev/batch-hold";
/// Annotation of a job that is cancelled when what it waits for cannot come any more; it waits for a person otherwise.
pub const KILL_ON_INVALID_DEPENDENCY: &str = "muster.dev/batch-kill-on-invalid-dependency";
/// Annotation of a job that was cancelled: it fails at once, and this says by whom, `user` or `dependency`.
pub const CANCELLED: &str = "muster.dev/batch-cancelled";
/// Annotation of a suspended job that starts again when its last pod is gone.
pub const REQUEUE: &str = "muster.dev/batch-requeue";

/// The ConfigMap with the next number of its namespace, under the key [`NEXT`].
pub const COUNTER: &str = "muster-batch";
/// The key of the next number.
pub const NEXT: &str = "next-id";

/// The name of the Job with this number.
pub fn job_name(id: u64) -> String {
    format!("batch-{id}")
}
