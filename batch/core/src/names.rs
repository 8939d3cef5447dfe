//! Labels and annotations of batch jobs.

/// Label of a job and its pods: the number by which people name the job, unique in its namespace. The tasks of an array
/// have the numbers from this one on.
pub const ID: &str = "muster.dev/batch-id";
/// Annotation with the name that a person gave the job.
pub const NAME: &str = "muster.dev/batch-name";
/// Annotation with the name of the person who submitted the job.
pub const USER: &str = "muster.dev/batch-user";
/// Annotation with the tasks of an array, such as `0-99%10`.
pub const ARRAY: &str = "muster.dev/batch-array";
/// Annotation with what the job waits for, such as `afterok:17`; gone when that has come.
pub const DEPENDENCY: &str = "muster.dev/batch-dependency";
/// Annotation with why the job will never start by itself.
pub const REASON: &str = "muster.dev/batch-reason";
/// Annotation of a job that a person holds: it is not started when what it waits for has come.
pub const HOLD: &str = "muster.dev/batch-hold";
/// Annotation of a job that a person has cancelled: it fails at once, and this says by whom.
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
