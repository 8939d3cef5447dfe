//! The rules of `MPIJob`: workers that wait, and a launcher that runs `mpirun` on them.
//!
//! The launcher is a `batch/v1` Job, which retries it; the workers are pods; a headless Service gives all of them
//! names, a ConfigMap holds the hostfile, and [`RemoteShell`] is how `mpirun` starts processes on the workers:
//! by SSH, with keys in a Secret, or by an agent over the API server's `exec`.
//!
//! `v1` and `v2beta1` of the kind are one resource and follow the same rules; [`Dialect`] is what they differ in.
//!
//! # Restarts
//! A launcher that fails is tried again by its Job, on the same workers, up to `runPolicy.backoffLimit`. A worker
//! that fails or vanishes takes its ranks with it, and leaves daemons of the others behind that nobody talks to
//! any more; so the job restarts as one: launcher and workers go, a new generation of all of them comes. That
//! counts as one failure of the launcher where the worker's own code failed, and as none where the cluster took
//! the pod. With `muster.dev/restart-scope: pod` (for Elastic Horovod, which copes with hosts that come and go)
//! only the worker is replaced. An evicted worker fails the job, as in the MPI operator.
//!
//! # Where this departs from the MPI operator
//! * `launcherCreationPolicy: AtStartup` creates the launcher at once, so that it is placed with its gang; but it
//!   waits in an init container until the workers' names resolve and their sshd answers. The Service publishes
//!   addresses of pods that are not ready, for the launcher must be found while it is none.
//! * Open MPI 5 reads other variables than 4; both sets are given.
//! * `ttlSecondsAfterFinished` is not handed to the launcher's Job, which could then vanish before its end is seen
//!   and be created, and run, once more; it is deleted here, at the same time.
//! * A job that is not valid fails and says why, instead of waiting for ever.

mod agent;
mod binding;
mod configuration;
pub(crate) mod environment;
mod failures;
mod framework;
mod job;
mod labels;
mod launcher;
mod objects;
mod planner;
mod ssh;
mod state;
mod validation;
mod worker;

pub use agent::AgentSource;
pub use framework::KIND;
pub use job::{Dialect, Implementation, LauncherCreation, MpiJob, RemoteShell, job, read};
pub use labels::OPERATOR_NAMES;
pub use planner::{Observed, plan};

/// What the rules of MPI jobs are told once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Where pods get the remote-shell agent from. Without it there is only sshd, and nobody who waits for it.
    pub agent: Option<AgentSource>,
}
