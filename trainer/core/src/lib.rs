//! The rules of training jobs: what pods and services a job needs, what its status says, when it restarts.
//!
//! Pure: no clock, no IO. The heart is [`plan`], one function from what is seen to what is to be done; a
//! controller carries a [`Plan`] out and asks again. A kind is a [`Kind`] (its data) and a [`Framework`] (its
//! own rules) on the common rules; [`KINDS`] lists them. [`mpi`], [`train_job`] and [`jobset`] are worlds of their own, with
//! a `plan` each.
//!
//! # Restart of a gang
//! When one rank of a distributed job fails, the others wait for it or time out one by one, and a rank that
//! comes back alone finds nobody to talk to. So by default the job restarts as one: every pod of the current
//! *generation* is deleted, and when all of them are gone the next generation is created. The generation and
//! the counts are annotations of the job ([`muster_trainer_api::annotation`]), written before the first pod
//! is deleted. Until that write nothing has happened; after it the failed pods belong to a retired generation
//! and cannot cause another restart. So a crash at any point yields exactly one.
//!
//! Failures of the infrastructure (eviction, preemption, a lost node, a pod deleted from outside) are free;
//! failures of the job's own code are counted against `runPolicy.backoffLimit`. Restarts that follow each
//! other quickly are delayed, see [`RestartBackoff`].
//!
//! # Where this departs from the training operator
//! * With restart scope `gang` the pods get `restartPolicy: Never`, whatever the replica says: a container that
//!   the kubelet restarts in place would rejoin a gang that does not expect it. `Always` then means the same
//!   as `OnFailure`: a rank that ended well is not run again.
//! * The annotation `muster.dev/restart-scope: pod` (the default where the framework copes with ranks that come
//!   and go: elastic PyTorchJobs, TFJobs with dynamic workers) keeps the training operator's way: only the failed
//!   pod is replaced, and the replica's restart policy is passed on to the kubelet.
//! * Restart policy `Never` (the default of TFJob, XGBoostJob and JAXJob) ends a job when its own code fails, and not when
//!   the infrastructure takes a pod.
//! * Restarts are counted on the job, not as the sum of the counts of the pods that happen to run.
//! * Scaling down is no failure, a job that has ended never changes, and a job without completion time is
//!   still removed after its time to live.

mod autoscaler;
mod backoff;
mod companion;
mod condition;
mod conditions;
mod digest;
mod elastic;
mod environment;
mod failures;
mod finish;
mod gang;
pub mod jax;
mod job;
pub mod jobset;
mod kind;
mod kinds;
mod members;
pub mod mpi;
mod objects;
pub mod paddle;
mod plan;
mod planner;
mod pod_token;
pub mod pytorch;
mod quantity;
mod rendezvous;
mod restart;
pub mod tensorflow;
pub mod train_job;
mod validation;
pub mod xgboost;

pub use backoff::RestartBackoff;
pub use companion::{Companion, CompanionAction};
pub use gang::{GangScheduler, PodGroupKind};
pub use job::{Job, Replica, RestartScope};
pub use kind::{Framework, InitContainer, Kind, Loss, Progress, ReplicaCounts, ReplicaType};
pub use kinds::{KINDS, TrainingKind};
pub use objects::{object_name, selector};
pub use plan::{
    Counter, Effect, Event, EventType, ObjectAction, Observed, Options, Plan, PodAnnotation, PodDeletion,
    plan, reject,
};
pub use rendezvous::{AUDIENCE as RENDEZVOUS_AUDIENCE, Rendezvous};
pub use restart::RestartState;
pub use validation::{FieldError, validate_update};
