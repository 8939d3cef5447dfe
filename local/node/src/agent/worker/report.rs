//! Reports the status of the pod: one request at a time, always the newest state.

use std::future::Future;
use std::pin::Pin;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::Worker;
use crate::plan::{Phase, Run};
use crate::status;

/// A report that failed is sent again after this time.
const RETRY: SignedDuration = SignedDuration::from_millis(500);

/// So long a report waits for a container that is starting.
const STARTING: SignedDuration = SignedDuration::from_millis(40);
/// So long a report waits while nothing is known to come.
const RUNNING: SignedDuration = SignedDuration::from_millis(5);

type Sending = Pin<Box<dyn Future<Output = Result<(), kube::Error>> + Send>>;

/// What was reported last, and the report on its way.
#[derive(Default)]
pub(super) struct Reporter {
    accepted: Option<PodStatus>,
    sending: Option<(PodStatus, Sending)>,
    /// Not before this time: after a failure, or because more is about to change.
    not_before: Option<Timestamp>,
    /// Since when a change waits to be reported.
    waiting_since: Option<Timestamp>,
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
                self.not_before = Some(Timestamp::now() + RETRY);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot report a pod's status; trying again");
                self.not_before = Some(Timestamp::now() + RETRY);
            }
        }
    }

    pub(super) fn not_before(&self) -> Option<Timestamp> {
        self.not_before.filter(|_| self.sending.is_none())
    }

    /// Something has just changed that may soon change again.
    pub(super) fn wait_again(&mut self) {
        self.waiting_since = self.waiting_since.map(|_| Timestamp::now());
    }

    /// Whether the API has the newest status.
    pub(super) fn has_told_all(&self) -> bool {
        self.is_idle() && self.accepted.is_some() && self.not_before.is_none() && self.waiting_since.is_none()
    }

    /// The API has this status already.
    pub(super) fn knows(&mut self, status: PodStatus) {
        self.accepted = Some(status);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.sending.is_none()
    }
}

impl Worker {
    /// Starts a report if the status differs from what the API has.
    pub(super) fn report(&mut self, urgent: bool) {
        if self.reporter.sending.is_some() {
            return;
        }
        let now = Timestamp::now();
        let failed = self.reporter.not_before.is_some() && self.reporter.waiting_since.is_none();
        if failed && self.reporter.not_before.is_some_and(|at| at > now) {
            return;
        }
        let status = self.status(now);
        if self.reporter.accepted.as_ref().is_some_and(|accepted| same(accepted, &status)) {
            (self.reporter.not_before, self.reporter.waiting_since) = (None, None);
            return;
        }
        if !urgent {
            let since = *self.reporter.waiting_since.get_or_insert(now);
            let due = since + self.patience();
            if due > now {
                self.reporter.not_before = Some(due);
                return;
            }
        }
        (self.reporter.not_before, self.reporter.waiting_since) = (None, None);
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.record.namespace);
        let name = self.record.name.clone();
        let patch = patch(&self.record.uid, &status);
        let sending = Box::pin(async move {
            api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(|_| ())
        });
        self.reporter.sending = Some((status, sending));
    }

    /// Reports the newest status and waits until the API has it, or refuses it.
    pub(super) async fn report_now(&mut self) {
        for _ in 0..2 {
            self.reporter.not_before = None;
            if !self.reporter.is_idle() {
                self.reporter.done().await;
            }
            self.reporter.not_before = None;
            self.report(true);
        }
        if !self.reporter.is_idle() {
            self.reporter.done().await;
        }
    }

    /// How long a change may wait for the next one: most programs start soon after they were asked to, and many
    /// end soon after they started.
    fn patience(&self) -> SignedDuration {
        if self.overall.finished.is_some() {
            SignedDuration::ZERO
        } else if self.runs.iter().any(|run| run.phase == Phase::Starting) {
            STARTING
        } else {
            RUNNING
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

/// Lists that are merged by key are replaced where they are the node's alone; conditions of others stay.
fn patch(uid: &str, status: &PodStatus) -> Value {
    let mut value = json!(status);
    for name in ["podIPs", "hostIPs"] {
        if let Some(list) = value[name].as_array_mut() {
            list.insert(0, json!({"$patch": "replace"}));
        }
    }
    clear_absent(&mut value, &["reason", "message", "podIP", "podIPs"]);
    let own = |condition: &Value| condition["type"].as_str().is_some_and(status::is_own_condition);
    if let Some(conditions) = value["conditions"].as_array_mut() {
        conditions.retain(own);
        for condition in conditions {
            clear_absent(condition, &["reason", "message"]);
        }
    }
    json!({"metadata": {"uid": uid}, "status": value})
}

/// Says of a field that is not there that it shall not be there.
fn clear_absent(value: &mut Value, names: &[&str]) {
    if let Some(object) = value.as_object_mut() {
        for name in names {
            object.entry(*name).or_insert(Value::Null);
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
    run.restarts = run.next_attempt();
    if let Phase::Ended(termination) = &run.phase {
        run.last = Some(termination.clone());
    }
    run.not_before = None;
    run.phase = Phase::Starting;
    run.reset_probes();
}
