//! What is known of a job that is being followed.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ContainerState, Event, Pod};
use muster_scheduler_api::annotations;
use serde_json::Value;

use super::metrics;

/// A pod of the job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PodView {
    /// One word: Pending, Running, Succeeded, or what holds it up.
    pub(crate) state: String,
    /// Node, once placed.
    pub(crate) node: Option<String>,
    /// GPU slots, such as `0,1`.
    pub(crate) gpus: Option<String>,
    /// Uid and restarts of the first container: a new pair is a new log.
    pub(crate) incarnation: (String, i32),
    /// Whether the first container has started or ended.
    pub(crate) has_log: bool,
    /// Exit code and reason, once it failed.
    pub(crate) failure: Option<String>,
    /// Which container failed.
    pub(crate) failed_container: Option<String>,
    /// What the scheduler or the node says it waits for.
    pub(crate) message: Option<String>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Condition Succeeded.
    Succeeded,
    /// Condition Failed, with its message.
    Failed(String),
    /// The job was deleted by someone.
    Deleted,
}

/// The job.
#[derive(Debug, Clone, Default)]
pub(crate) struct JobState {
    /// Its pods by name.
    pub(crate) pods: BTreeMap<String, PodView>,
    /// Type and message of its latest condition.
    pub(crate) condition: Option<(String, String)>,
    /// Steps done and in all.
    pub(crate) steps: Option<(u64, u64)>,
    /// Latest loss.
    pub(crate) loss: Option<String>,
    /// The result line's pairs.
    pub(crate) result: BTreeMap<String, String>,
    /// How it ended.
    pub(crate) end: Option<End>,
    /// Last lines of each pod's log.
    pub(crate) tails: BTreeMap<String, Vec<String>>,
    /// Reason and message of the latest warning about each pod of the namespace, by uid.
    warnings: BTreeMap<String, (String, String)>,
    /// Uids and messages that were told.
    told: BTreeSet<(String, String)>,
}

/// Pods of which a warning is kept, as a namespace may have many of other jobs.
const WARNED: usize = 256;

/// Lines kept of each log, to show when the pod fails.
pub(crate) const TAIL: usize = 8;

/// Something worth a line when the view is plain.
pub(crate) type News = Vec<String>;

impl JobState {
    /// The pod whose log carries the metrics: the chief or master, else worker 0.
    pub(crate) fn reporter(&self) -> Option<&str> {
        let named = |suffix: &str| self.pods.keys().find(|name| name.ends_with(suffix));
        ["-chief-0", "-master-0", "-worker-0"].into_iter().find_map(named).map(String::as_str)
    }

    /// The job changed.
    pub(crate) fn job_seen(&mut self, job: &Value) -> News {
        let Some(last) = job["status"]["conditions"].as_array().and_then(|list| list.last()) else {
            return News::new();
        };
        let text = |field: &str| last[field].as_str().unwrap_or_default().to_owned();
        let seen = (text("type"), text("message"));
        let holds = |wanted: &str| {
            let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
            conditions
                .into_iter()
                .find(|condition| condition["type"] == wanted && condition["status"] == "True")
                .cloned()
        };
        if holds("Succeeded").is_some() {
            self.end = Some(End::Succeeded);
        } else if let Some(failed) = holds("Failed") {
            self.end =
                Some(End::Failed(failed["message"].as_str().unwrap_or("no reason was given").to_owned()));
        }
        if self.condition.as_ref().is_some_and(|known| known.0 == seen.0) {
            self.condition = Some(seen);
            return News::new();
        }
        let news = match seen.0.as_str() {
            "Restarting" | "Suspended" => vec![format!("job {}: {}", seen.0, seen.1)],
            _ => News::new(),
        };
        self.condition = Some(seen);
        news
    }

    /// A pod appeared or changed.
    pub(crate) fn pod_seen(&mut self, pod: &Pod) -> News {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let view = view(pod);
        let before = self.pods.insert(name.clone(), view.clone());
        if let Some(message) = &view.message {
            self.told.insert((view.incarnation.0.clone(), message.clone()));
        }
        let warning = self.untold_warning(&name);
        let same_state = before.as_ref().is_some_and(|before| before.state == view.state);
        let same_message = before.is_some_and(|before| before.message == view.message);
        if same_state && (same_message || view.message.is_none()) {
            return warning;
        }
        let place = match (&view.node, &view.gpus) {
            (Some(node), Some(gpus)) => format!(" on {node} (GPU {gpus})"),
            (Some(node), None) => format!(" on {node}"),
            _ => String::new(),
        };
        let why = view
            .message
            .as_deref()
            .or(view.failure.as_deref())
            .map(|why| format!(": {why}"))
            .unwrap_or_default();
        let mut news = vec![format!("{name} {}{place}{why}", view.state)];
        news.extend(warning);
        news
    }

    /// Somebody warned about a pod of the namespace.
    pub(crate) fn warning_seen(&mut self, event: &Event) -> News {
        let about = &event.involved_object;
        let (Some(uid), Some(name), Some(message)) = (&about.uid, &about.name, &event.message) else {
            return News::new();
        };
        if self.warnings.len() >= WARNED && !self.warnings.contains_key(uid) {
            self.warnings.pop_first();
        }
        let reason = event.reason.clone().unwrap_or_default();
        self.warnings.insert(uid.clone(), (reason, message.clone()));
        self.untold_warning(name)
    }

    /// What the latest warning says of a pod that does not start, unless it was said before.
    fn untold_warning(&mut self, name: &str) -> News {
        let Some(pod) = self.pods.get_mut(name).filter(|pod| !pod.has_log) else { return News::new() };
        let uid = &pod.incarnation.0;
        let Some((reason, message)) = self.warnings.get(uid) else { return News::new() };
        let news = format!("{name} {reason}: {message}");
        let is_new = self.told.insert((uid.clone(), message.clone()));
        if is_new || pod.message.is_none() {
            pod.message = Some(message.clone());
        }
        if is_new { vec![news] } else { News::new() }
    }

    /// A pod is gone.
    pub(crate) fn pod_gone(&mut self, name: &str) {
        self.pods.remove(name);
    }

    /// A pod printed a line.
    pub(crate) fn line_seen(&mut self, pod: &str, line: &str) -> News {
        let tail = self.tails.entry(pod.to_owned()).or_default();
        if tail.len() == TAIL {
            tail.remove(0);
        }
        tail.push(line.to_owned());
        if self.reporter() != Some(pod) {
            return News::new();
        }
        let pairs = metrics::parse(line);
        if metrics::is_result(line) {
            self.result =
                pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            return News::new();
        }
        let number = |name: &str| pairs.get(name).and_then(|value| value.parse::<u64>().ok());
        let Some(step) = number("step") else { return News::new() };
        let total = number("steps_total").or(self.steps.map(|(_, total)| total)).unwrap_or(0);
        self.steps = Some((step, total));
        if let Some(loss) = pairs.get("loss") {
            self.loss = Some((*loss).to_owned());
        }
        let of = if total > 0 { format!("/{total}") } else { String::new() };
        let loss = self.loss.as_ref().map(|loss| format!(" loss {loss}")).unwrap_or_default();
        vec![format!("step {step}{of}{loss}")]
    }
}

fn view(pod: &Pod) -> PodView {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.clone().unwrap_or_default();
    let first = containers.first();
    let all = || status.init_container_statuses.iter().flatten().chain(&containers);
    let waiting = || all().filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    let held = waiting().find(|waiting| {
        !matches!(waiting.reason.as_deref(), None | Some("ContainerCreating" | "PodInitializing"))
    });
    let explained = waiting().find_map(|waiting| waiting.message.clone());
    let failed =
        all().find_map(|container| Some((container.name.clone(), failure(container.state.as_ref()?)?)));
    let (failed_container, failure) = failed.unzip();
    let phase = status.phase.clone().unwrap_or_else(|| "Pending".to_owned());
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    let state =
        match (held.and_then(|waiting| waiting.reason.clone()), pod.metadata.deletion_timestamp.is_some()) {
            (_, true) => "Terminating".to_owned(),
            (Some(reason), _) => reason,
            (None, _) => phase,
        };
    let note = |name: &str| pod.metadata.annotations.as_ref().and_then(|notes| notes.get(name)).cloned();
    PodView {
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        gpus: note(annotations::GPU_INDICES),
        incarnation: (
            pod.metadata.uid.clone().unwrap_or_default(),
            first.map_or(0, |container| container.restart_count),
        ),
        has_log: first
            .and_then(|container| container.state.as_ref())
            .is_some_and(|state| state.running.is_some() || state.terminated.is_some()),
        failure,
        failed_container,
        message: held
            .and_then(|waiting| waiting.message.clone())
            .or(explained)
            .or_else(|| unscheduled.and_then(|condition| condition.message.clone())),
        state,
    }
}

fn failure(state: &ContainerState) -> Option<String> {
    let ended = state.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
    let reason = ended.reason.as_deref().unwrap_or("Error");
    Some(match &ended.message {
        Some(message) if !message.is_empty() => {
            format!("exit code {} ({reason}): {}", ended.exit_code, message.trim())
        }
        _ => format!("exit code {} ({reason})", ended.exit_code),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "uid": "u", "annotations": {"muster.dev/gpu-indices": "2"}},
            "spec": {"nodeName": "n0", "containers": []}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_change_of_state_is_news_once() {
        let mut state = JobState::default();
        let running = pod("d-master-0", json!({"phase": "Running"}));
        assert_eq!(state.pod_seen(&running), ["d-master-0 Running on n0 (GPU 2)"]);
        assert!(state.pod_seen(&running).is_empty());
    }

    #[test]
    fn a_warning_about_a_pod_that_does_not_start_is_told_once() {
        let mut state = JobState::default();
        let about = |uid: &str, name: &str, text: &str| -> Event {
            serde_json::from_value(json!({"metadata": {}, "reason": "FailedMount", "message": text,
                "involvedObject": {"kind": "Pod", "name": name, "uid": uid}}))
            .unwrap()
        };
        let warning = about("u", "d-master-0", "configmap \"c\" not found");
        assert!(state.warning_seen(&warning).is_empty(), "whose it is becomes known later");
        let pending = pod("d-master-0", json!({"phase": "Pending"}));
        let told = "d-master-0 FailedMount: configmap \"c\" not found";
        assert_eq!(state.pod_seen(&pending), ["d-master-0 Pending on n0 (GPU 2)", told]);
        assert!(state.warning_seen(&warning).is_empty() && state.pod_seen(&pending).is_empty());
        assert_eq!(state.pods["d-master-0"].message.as_deref(), Some("configmap \"c\" not found"));
        assert_eq!(state.warning_seen(&about("u", "d-master-0", "other")), ["d-master-0 FailedMount: other"]);
        assert!(state.warning_seen(&about("v", "another-0", "other")).is_empty(), "not of this job");
    }

    #[test]
    fn the_container_that_failed_is_named() {
        let of = |name: &str, code: i32| {
            json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code}}})
        };
        let mut state = JobState::default();
        let status = json!({"phase": "Failed", "containerStatuses": [of("first", 0), of("second", 3)]});
        state.pod_seen(&pod("d-master-0", status));
        let seen = &state.pods["d-master-0"];
        assert_eq!(seen.failed_container.as_deref(), Some("second"));
        assert_eq!(seen.failure.as_deref(), Some("exit code 3 (Error)"));
    }

    #[test]
    fn metrics_come_from_the_reporter_only() {
        let mut state = JobState::default();
        for name in ["d-master-0", "d-worker-0"] {
            state.pod_seen(&pod(name, json!({"phase": "Running"})));
        }
        assert!(state.line_seen("d-worker-0", "step=9 loss=1").is_empty());
        assert_eq!(
            state.line_seen("d-master-0", "step=10 epoch=1 loss=0.5 steps_total=40"),
            ["step 10/40 loss 0.5"]
        );
        state.line_seen("d-master-0", "result steps=40 test_accuracy=0.98");
        assert_eq!(state.result["test_accuracy"], "0.98");
        state.pod_seen(&pod("d-chief-0", json!({"phase": "Running"})));
        assert_eq!(state.reporter(), Some("d-chief-0"));
    }

    #[test]
    fn the_end_is_read_from_the_conditions() {
        let mut state = JobState::default();
        state.job_seen(&json!({"status": {"conditions": [
            {"type": "Running", "status": "False"}, {"type": "Failed", "status": "True", "message": "it broke"}]}}));
        assert_eq!(state.end, Some(End::Failed("it broke".into())));
    }

    #[test]
    fn a_held_up_container_gives_the_pods_state() {
        let mut state = JobState::default();
        let status = json!({"phase": "Pending", "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ErrImageNeverPull", "message": "map it"}}}]});
        assert_eq!(
            state.pod_seen(&pod("d-master-0", status)),
            ["d-master-0 ErrImageNeverPull on n0 (GPU 2): map it"]
        );
    }
}
