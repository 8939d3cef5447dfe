//! What a pod's worker does next, and what the pod's status says: decided from the state of its containers. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::backoff::Backoff;

/// Which list of the pod a container is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next starts.
    Init,
    /// An init container that stays (restartPolicy Always).
    Sidecar,
    /// One of `spec.containers`.
    Main,
}

/// The pod's `restartPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    /// Restart whatever the exit code.
    Always,
    /// Restart unless the exit code is 0.
    OnFailure,
    /// Never restart.
    Never,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Termination {
    /// Exit code.
    pub(crate) code: i32,
    /// Completed, Error, OOMKilled, StartError, …
    pub(crate) reason: String,
    /// Message of the status.
    pub(crate) message: Option<String>,
    /// When the program started.
    pub(crate) started: Option<Timestamp>,
    /// When it ended.
    pub(crate) finished: Timestamp,
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not started, or not started again, and why.
    Waiting {
        /// Reason of the status.
        reason: String,
        /// Message of the status.
        message: Option<String>,
    },
    /// Asked to start.
    Starting,
    /// Runs.
    Running {
        /// Since when.
        started: Timestamp,
    },
    /// Ended.
    Ended(Termination),
}

/// A container of the pod.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// Its name.
    pub(crate) name: String,
    /// Its list.
    pub(crate) role: Role,
    /// Where it is.
    pub(crate) phase: Phase,
    /// How often it was restarted.
    pub(crate) restarts: u32,
    /// How the run before ended.
    pub(crate) last: Option<Termination>,
    /// Restart waits.
    pub(crate) backoff: Backoff,
    /// When it may start again.
    pub(crate) not_before: Option<Timestamp>,
    /// The startup probe succeeded, or there is none.
    pub(crate) startup_done: bool,
    /// The readiness probe succeeds, or there is none.
    pub(crate) probe_ready: bool,
    /// postStart ran, or there is none.
    pub(crate) hook_done: bool,
    has_startup_probe: bool,
    has_readiness_probe: bool,
    has_hook: bool,
}

impl Run {
    fn new(container: &Container, role: Role) -> Self {
        let reason = if role == Role::Main { "ContainerCreating" } else { "PodInitializing" };
        let mut run = Self {
            name: container.name.clone(),
            role,
            phase: Phase::Waiting { reason: reason.to_owned(), message: None },
            restarts: 0,
            last: None,
            backoff: Backoff::default(),
            not_before: None,
            startup_done: false,
            probe_ready: false,
            hook_done: false,
            has_startup_probe: container.startup_probe.is_some(),
            has_readiness_probe: container.readiness_probe.is_some(),
            has_hook: container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some()),
        };
        run.reset_probes();
        run
    }

    /// Before a start.
    pub(crate) fn reset_probes(&mut self) {
        self.startup_done = !self.has_startup_probe;
        self.probe_ready = !self.has_readiness_probe;
        self.hook_done = !self.has_hook;
    }

    /// Number of the next start: one more than the last if there was one.
    pub(crate) fn next_attempt(&self) -> u32 {
        let begun = match self.phase {
            Phase::Waiting { .. } => self.last.is_some(),
            _ => matches!(self.phase, Phase::Ended(_)),
        };
        self.restarts + u32::from(begun)
    }

    /// Runs now.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    /// Runs and its startup probe and hook are done.
    pub(crate) fn is_started(&self) -> bool {
        self.is_running() && self.startup_done && self.hook_done
    }

    /// Counts as ready.
    pub(crate) fn is_ready(&self) -> bool {
        match (self.role, &self.phase) {
            (Role::Init, Phase::Ended(termination)) => termination.code == 0,
            (Role::Init, _) => false,
            _ => self.is_started() && self.probe_ready,
        }
    }

    fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running { .. })
    }
}

/// The containers of a pod in the order they start.
pub(crate) fn runs(spec: &PodSpec) -> Vec<Run> {
    let init = spec.init_containers.iter().flatten().map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        Run::new(container, if sidecar { Role::Sidecar } else { Role::Init })
    });
    let mut runs: Vec<Run> =
        init.chain(spec.containers.iter().map(|container| Run::new(container, Role::Main))).collect();
    let initializing = runs.iter().any(|run| run.role == Role::Init);
    for run in &mut runs {
        if run.role == Role::Main && initializing {
            run.phase = Phase::Waiting { reason: "PodInitializing".to_owned(), message: None };
        }
    }
    runs
}

/// The pod's restart policy.
pub(crate) fn restart_policy(spec: &PodSpec) -> RestartPolicy {
    match spec.restart_policy.as_deref() {
        Some("Never") => RestartPolicy::Never,
        Some("OnFailure") => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    }
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Start these containers (places in the list).
    Start(Vec<usize>),
    /// Nothing before this time, or before the next event.
    Wait(Option<Timestamp>),
    /// Every main container is done for good; end what still runs, then the pod is over.
    Finish {
        /// All main containers ended with 0.
        success: bool,
    },
}

/// Whether a container that ended so starts again.
fn restarts(policy: RestartPolicy, role: Role, code: i32) -> bool {
    match (role, policy) {
        (Role::Sidecar, _) | (Role::Main, RestartPolicy::Always) => true,
        // An init container that succeeded is done under every policy.
        (Role::Init, RestartPolicy::Always) | (_, RestartPolicy::OnFailure) => code != 0,
        (_, RestartPolicy::Never) => false,
    }
}

/// Decides the next step.
pub(crate) fn next_step(runs: &[Run], policy: RestartPolicy, now: Timestamp) -> Step {
    let mut start = Vec::new();
    let mut wake: Option<Timestamp> = None;
    let mut try_start = |index: usize, run: &Run| match run.not_before {
        Some(at) if at > now => wake = Some(wake.map_or(at, |other| other.min(at))),
        _ => start.push(index),
    };
    let mut initialized = true;
    for (index, run) in runs.iter().enumerate().filter(|(_, run)| run.role != Role::Main) {
        match &run.phase {
            Phase::Waiting { .. } if initialized => try_start(index, run),
            Phase::Ended(termination) if restarts(policy, run.role, termination.code) => {
                try_start(index, run);
            }
            Phase::Ended(termination) if termination.code != 0 => return Step::Finish { success: false },
            _ => {}
        }
        initialized &= match run.role {
            Role::Sidecar => run.is_started(),
            _ => matches!(&run.phase, Phase::Ended(termination) if termination.code == 0),
        };
    }
    let main = || runs.iter().enumerate().filter(|(_, run)| run.role == Role::Main);
    let mut done = true;
    for (index, run) in main() {
        match &run.phase {
            Phase::Ended(termination) if !restarts(policy, run.role, termination.code) => continue,
            Phase::Waiting { .. } if initialized => try_start(index, run),
            Phase::Ended(_) => try_start(index, run),
            _ => {}
        }
        done = false;
    }
    if done {
        let success =
            main().all(|(_, run)| matches!(&run.phase, Phase::Ended(termination) if termination.code == 0));
        return Step::Finish { success };
    }
    if start.is_empty() { Step::Wait(wake) } else { Step::Start(start) }
}

/// Whether every init container is done (or started, for sidecars).
pub(crate) fn is_initialized(runs: &[Run]) -> bool {
    runs.iter().all(|run| match run.role {
        Role::Main => true,
        Role::Sidecar => run.is_started() || matches!(run.phase, Phase::Ended(_)),
        Role::Init => matches!(&run.phase, Phase::Ended(termination) if termination.code == 0),
    })
}

/// Names of the containers for which `wanted` does not hold, for messages of conditions.
pub(crate) fn names_without(runs: &[Run], role_is_main: bool, wanted: impl Fn(&Run) -> bool) -> Vec<&str> {
    runs.iter()
        .filter(|run| (run.role == Role::Main) == role_is_main && !wanted(run))
        .map(|run| run.name.as_str())
        .collect()
}

/// Anything of the pod is alive.
pub(crate) fn is_active(runs: &[Run]) -> bool {
    runs.iter().any(Run::is_active)
}

/// Notes that a container ended, and when it may start again.
pub(crate) fn note_end(run: &mut Run, termination: Termination, now: Timestamp) {
    let ran = termination
        .started
        .map_or(0, |started| termination.finished.duration_since(started).as_secs().max(0));
    let wait = run.backoff.next(std::time::Duration::from_secs(ran as u64));
    run.not_before = (!wait.is_zero()).then(|| now + jiff::SignedDuration::from_secs(wait.as_secs() as i64));
    run.phase = Phase::Ended(termination);
}

/// Exit codes by container, for logs.
pub(crate) fn exit_codes(runs: &[Run]) -> BTreeMap<&str, i32> {
    runs.iter()
        .filter_map(|run| match &run.phase {
            Phase::Ended(termination) => Some((run.name.as_str(), termination.code)),
            _ => None,
        })
        .collect()
}
