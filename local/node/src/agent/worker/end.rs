//! The end of a pod: preStop, SIGTERM, the grace period, SIGKILL, and cleaning up.

use std::time::Duration;

use fs_err as fs;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Preconditions};

use super::{Word, Worker};
use crate::agent::container::{log_path, termination_log};
use crate::agent::log_files::last_lines;
use crate::agent::{peers, probes};
use crate::plan::{self, Phase, Termination};
use crate::protocol::InitRequest;

/// A message of the status has at most this many bytes.
const MESSAGE_LIMIT: usize = 4096;
/// A container that failed its probe gets this long after SIGTERM.
const PROBE_GRACE: Duration = Duration::from_secs(30);

/// A pod on its way out.
#[derive(Debug)]
pub(super) struct Ending {
    /// Everything is killed then.
    deadline: Timestamp,
    /// What the pod becomes; `None` while its object is being deleted.
    success: Option<bool>,
    term_sent: bool,
}

impl Ending {
    pub(super) fn wake_time(&self) -> Timestamp {
        self.deadline
    }

    pub(super) fn is_term_sent(&self) -> bool {
        self.term_sent
    }
}

fn after(grace: Duration) -> Timestamp {
    Timestamp::now() + SignedDuration::try_from(grace).unwrap_or(SignedDuration::from_secs(30))
}

impl Worker {
    /// Begins to end what still runs; `success` is what the pod then becomes.
    pub(super) async fn begin_ending(&mut self, success: Option<bool>, grace: Duration) {
        self.ending = Some(Ending { deadline: after(grace), success, term_sent: false });
        if plan::is_active(&self.runs) {
            self.stop_containers(grace).await;
        }
        self.step_ending().await;
    }

    async fn stop_containers(&mut self, grace: Duration) {
        let mut hooks = Vec::new();
        let running: Vec<String> =
            self.runs.iter().filter(|run| run.is_running()).map(|run| run.name.clone()).collect();
        for name in running {
            self.event(Some(&name), false, "Killing", format!("Stopping container {name}"));
            let container = self.container(&name);
            let hook =
                container.and_then(|container| container.lifecycle).and_then(|lifecycle| lifecycle.pre_stop);
            hooks.extend(hook.map(|hook| (name, hook)));
        }
        for tasks in self.tasks.values_mut() {
            tasks.abort_all();
        }
        if hooks.is_empty() {
            self.send_term().await;
            return;
        }
        let (words, address) = (self.words.0.clone(), self.dial_address());
        self.tasks.entry(String::new()).or_default().spawn(async move {
            for (name, hook) in hooks {
                let _ = probes::run_hook(&words, &name, &hook, &address, grace).await;
            }
            let _ = words.send(Word::PreStopDone).await;
        });
    }

    pub(super) async fn send_term(&mut self) {
        match &mut self.ending {
            Some(ending) if !ending.term_sent => ending.term_sent = true,
            _ => return,
        }
        let names: Vec<String> =
            self.runs.iter().filter(|run| run.is_running()).map(|run| run.name.clone()).collect();
        for container in names {
            self.tell_init(&InitRequest::Signal { container, signal: libc::SIGTERM }).await;
        }
    }

    /// A container that should restart but does not end is killed.
    pub(super) fn kill_later(&mut self, container: String, attempt: u32) {
        let words = self.words.0.clone();
        let grace =
            self.spec.termination_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let grace = grace.map_or(PROBE_GRACE, Duration::from_secs);
        self.tasks.entry(container.clone()).or_default().spawn(async move {
            tokio::time::sleep(grace).await;
            let _ = words.send(Word::Kill { container, attempt }).await;
        });
    }

    pub(super) async fn step_ending(&mut self) {
        let Some(ending) = &self.ending else { return };
        if plan::is_active(&self.runs) && Timestamp::now() < ending.deadline {
            return;
        }
        let success = ending.success;
        self.end_processes().await;
        self.ending = None;
        if let Some(success) = success {
            self.overall.finished = Some(success);
            self.release();
            self.record.finished = true;
            if let Err(error) = self.record.save(&self.directory) {
                tracing::warn!(pod = %self.record.name, %error, "cannot note that the pod is over");
            }
            self.remove_work_files();
        }
    }

    /// Ends the init process and notes the containers that died with it.
    async fn end_processes(&mut self) {
        self.tasks.clear();
        self.execs.clear();
        if let Some(process) = self.process.take() {
            process.end().await;
        }
        self.context.groups.remove(&self.record.uid, None);
        self.overall.sandbox_ready = false;
        let now = Timestamp::now();
        for run in &mut self.runs {
            let started = match run.phase {
                Phase::Running { started } => Some(started),
                Phase::Starting => None,
                _ => continue,
            };
            let reason = "Error".to_owned();
            let message = self.last_words.remove(&run.name);
            run.phase = Phase::Ended(Termination { code: 137, reason, message, started, finished: now });
        }
        self.give_back_network();
    }

    pub(super) async fn step_deletion(&mut self) {
        if self.overall.finished.is_none() {
            let grace = self.grace();
            match &mut self.ending {
                None => self.begin_ending(None, grace).await,
                // The pod was ending already; its deletion may shorten the wait.
                Some(ending) => {
                    ending.success = None;
                    ending.deadline = ending.deadline.min(after(grace));
                    self.step_ending().await;
                }
            }
            if self.ending.is_some() {
                return;
            }
            let codes = plan::exit_codes(&self.runs);
            let failed = codes.len() < self.spec.containers.len() || codes.values().any(|code| *code != 0);
            self.overall.finished = Some(!failed);
            // An image that is not there is looked for no more.
            self.retry_at = None;
            self.release();
        }
        // Once per version of the object: it may be held by a finalizer.
        let version = self.pod.metadata.resource_version.clone();
        if self.deleted_version != version && self.retry_at.is_none() {
            self.report_now().await;
            self.deleted_version = version;
            self.delete_object().await;
        }
    }

    async fn delete_object(&mut self) {
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.record.namespace);
        let preconditions = Preconditions { uid: Some(self.record.uid.clone()), resource_version: None };
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        match api.delete(&self.record.name, &parameters).await {
            Ok(_) => {}
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => {}
            Err(error) => {
                tracing::warn!(pod = %self.record.name, %error, "cannot remove a pod that has ended; trying again");
                self.deleted_version = None;
                self.retry_at = Some(Timestamp::now() + SignedDuration::from_secs(1));
            }
        }
    }

    /// The object is gone: nothing of the pod may stay.
    pub(super) async fn vanish(&mut self) {
        self.end_processes().await;
        self.release();
        let logs = self.context.logs_dir(&self.record.namespace, &self.record.name, &self.record.uid);
        for folder in [&self.directory, &logs] {
            remove(folder);
        }
    }

    /// Gives back what the pod holds besides files.
    fn release(&mut self) {
        self.context.names.remove(&self.directory.join("etc/hosts"));
        if let Some(slots) = self.context.gpus.lock().get_mut(&self.record.node) {
            slots.release(&self.record.uid);
        }
        self.context.gpus_freed.notify_waiters();
        self.record.gpus.clear();
        if let Some(peers) = self.record.peers.take() {
            peers::leave(&self.context.state_dir, &peers, &self.record.uid);
        }
    }

    /// To be called when the pod's processes are gone.
    pub(super) fn give_back_network(&mut self) {
        let address = self.record.address.take();
        let Some(networks) = &self.context.network else { return };
        match (self.network.take(), address) {
            (Some(network), _) => networks.give_back(network),
            // The pod of an agent before this one: its namespace is held by nobody any more.
            (None, Some(std::net::IpAddr::V4(address))) => networks.release(address),
            (None, _) => {}
        }
    }

    fn remove_work_files(&self) {
        for name in ["volumes", "containers", "etc", "shm", "init.sock", "kubeconfig"] {
            remove(&self.directory.join(name));
        }
    }

    /// What the container wrote to its termination log, or the end of its log where it asked for that.
    pub(super) fn termination_message(&self, name: &str, attempt: u32, code: i32) -> Option<String> {
        let text = fs::read(termination_log(&self.directory, name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[..text.len().min(MESSAGE_LIMIT)]).into_owned();
        if !text.is_empty() {
            return Some(text);
        }
        let policy = self.container(name)?.termination_message_policy;
        let fallback = policy.as_deref() == Some("FallbackToLogsOnError") && code != 0;
        fallback.then(|| last_lines(&log_path(&self.context, &self.pod, name, attempt), 80, 2048)).flatten()
    }
}

fn remove(path: &std::path::Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return,
    };
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), %error, "cannot remove what a pod left");
    }
}
