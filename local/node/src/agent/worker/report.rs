//! Reports the status of the pod: one request at a time, always the newest state.

use std::future::Future;
use std::pin::Pin;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::Worker;
use crate::plan::{Phase, Run};
use crate::status;

/// A report that failed is sent again after this time.
const RETRY: SignedDuration = SignedDuration::from_millis(500);

type Sending = Pin<Box<dyn Future<Output = Result<(), kube::Error>> + Send>>;

/// What was reported last, and the report on its way.
#[derive(Default)]
pub(super) struct Reporter {
    accepted: Option<PodStatus>,
    sending: Option<(PodStatus, Sending)>,
    retry_at: Option<Timestamp>,
}

impl Reporter {
    /// Ends when the report on its way has arrived; never if there is none. May be dropped and asked again.
    pub(super) async fn done(&mut self) {
        let Some((_, sending)) = &mut self.sending else { return std::future::pending().await };
        let result = sending.await;
        let Some((status, _)) = self.sending.take() else { return };
        match result {
            Ok(()) => self.accepted = Some(status),
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => {
                // Another pod has the name by now; the watch will say so.
                tracing::debug!(%answer, "a pod's status was not accepted");
                self.retry_at = Some(Timestamp::now() + RETRY);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot report a pod's status; trying again");
                self.retry_at = Some(Timestamp::now() + RETRY);
            }
        }
    }

    pub(super) fn retry_at(&self) -> Option<Timestamp> {
        self.retry_at
    }

    pub(super) fn is_idle(&self) -> bool {
        self.sending.is_none()
    }
}

impl Worker {
    /// Starts a report if the status differs from what the API has.
    pub(super) fn report(&mut self) {
        if self.reporter.sending.is_some() {
            return;
        }
        let now = Timestamp::now();
        if self.reporter.retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.reporter.retry_at = None;
        let status = self.status(now);
        if self.reporter.accepted.as_ref().is_some_and(|accepted| same(accepted, &status)) {
            return;
        }
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.record.namespace);
        let name = self.record.name.clone();
        let patch = json!({"metadata": {"uid": self.record.uid}, "status": status});
        let sending = Box::pin(async move {
            api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ())
        });
        self.reporter.sending = Some((status, sending));
    }

    /// Reports the newest status and waits until the API has it, or refuses it.
    pub(super) async fn report_now(&mut self) {
        for _ in 0..2 {
            self.reporter.retry_at = None;
            if !self.reporter.is_idle() {
                self.reporter.done().await;
            }
            self.reporter.retry_at = None;
            self.report();
        }
        if !self.reporter.is_idle() {
            self.reporter.done().await;
        }
    }

    fn status(&self, now: Timestamp) -> PodStatus {
        let mut status = status::compute(&self.pod, &self.runs, &self.overall, now);
        // A condition keeps the time at which it turned, also when the API has not sent it back yet.
        if let (Some(conditions), Some(accepted)) = (
            &mut status.conditions,
            self.reporter.accepted.as_ref().and_then(|accepted| accepted.conditions.as_ref()),
        ) {
            for condition in conditions {
                let old = accepted
                    .iter()
                    .find(|old| old.type_ == condition.type_ && old.status == condition.status);
                if let Some(old) = old {
                    condition.last_transition_time.clone_from(&old.last_transition_time);
                }
            }
        }
        status
    }

    /// Restart counts and last terminations as the API has them, after the agent was restarted.
    pub(super) fn remember_runs(&mut self) {
        let Some(status) = &self.pod.status else { return };
        let statuses = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
        for status in statuses {
            let Some(run) = self.runs.iter_mut().find(|run| run.name == status.name) else { continue };
            run.restarts = u32::try_from(status.restart_count).unwrap_or(0);
            let ended = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
                let state = state.as_ref()?.terminated.clone()?;
                Some(crate::plan::Termination {
                    code: state.exit_code,
                    reason: state.reason.unwrap_or_default(),
                    message: state.message,
                    started: state.started_at.map(|time| time.0),
                    finished: state.finished_at.map_or(Timestamp::UNIX_EPOCH, |time| time.0),
                })
            };
            run.last = ended(&status.last_state);
            if let Some(termination) = ended(&status.state) {
                run.phase = Phase::Ended(termination);
            } else if let Some(running) = status.state.as_ref().and_then(|state| state.running.as_ref()) {
                let started = running.started_at.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
                run.phase = Phase::Running { started };
            }
        }
    }
}

/// Equal but for the moments at which conditions turned.
fn same(left: &PodStatus, right: &PodStatus) -> bool {
    let strip = |status: &PodStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_transition_time = None;
        }
        status
    };
    strip(left) == strip(right)
}

/// The next start of a container counts as a restart if it ran or failed before.
pub(super) fn note_restart(run: &mut Run) {
    if let Phase::Ended(termination) = &run.phase {
        run.last = Some(termination.clone());
        run.restarts += 1;
    }
    run.not_before = None;
    run.phase = Phase::Starting;
    run.reset_probes();
}
