//! In which state a batch job is, as `muster queue` tells it: one row for a job, and for an array one for each task that
//! runs and one for those that wait.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use muster_scheduler_api::labels::QUEUE;

use crate::dependency::Progress;
use crate::{Array, board, names};

const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// The state of a job or of a task, with Slurm's letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It runs.
    Running,
    /// It is about to end.
    Completing,
    /// It waits.
    Pending,
    /// It ended well.
    Completed,
    /// It failed.
    Failed,
    /// Its time was over.
    Timeout,
    /// A person cancelled it.
    Cancelled,
}

impl State {
    /// Slurm's letters for it.
    pub fn code(self) -> &'static str {
        match self {
            Self::Running => "R",
            Self::Completing => "CG",
            Self::Pending => "PD",
            Self::Completed => "CD",
            Self::Failed => "F",
            Self::Timeout => "TO",
            Self::Cancelled => "CA",
        }
    }

    /// Whether nothing of it runs any more or will.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Timeout | Self::Cancelled)
    }
}

/// One row of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The number of the job.
    pub id: u64,
    /// Which tasks of an array, such as `7` or `[8-99%10]`.
    pub tasks: Option<String>,
    /// The queue.
    pub queue: String,
    /// What people call the job.
    pub name: String,
    /// Who submitted it.
    pub user: String,
    /// Its state.
    pub state: State,
    /// When it started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The node, or why there is none.
    pub place: String,
}

impl Row {
    /// `17`, `17_3` or `17_[4-9]`.
    pub fn label(&self) -> String {
        match &self.tasks {
            None => self.id.to_string(),
            Some(tasks) => format!("{}_{tasks}", self.id),
        }
    }
}

/// The number of a batch job; none of other jobs.
pub fn id(job: &Job) -> Option<u64> {
    job.metadata.labels.as_ref()?.get(names::ID)?.parse().ok()
}

/// The rows of a job, given its pods; none for a job that is not a batch job.
pub fn rows(job: &Job, pods: &[&Pod]) -> Vec<Row> {
    let Some(id) = id(job) else { return Vec::new() };
    let look = Look { job, pods, id };
    let array = look.annotation(names::ARRAY).and_then(|text| text.parse::<Array>().ok());
    match (array, look.outcome()) {
        (None, None) => vec![look.single()],
        (None, Some(state)) => vec![look.over(state, None)],
        (Some(array), Some(state)) => vec![look.over(state, Some(format!("[{array}]")))],
        (Some(array), None) => look.tasks(&array),
    }
}

struct Look<'a> {
    job: &'a Job,
    pods: &'a [&'a Pod],
    id: u64,
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn is_over(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// The state of a pod that has not ended, and where it is or why it is nowhere.
fn of_pod(pod: &Pod) -> (State, String) {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let leaving = pod.metadata.deletion_timestamp.is_some();
    match (leaving, node.is_empty()) {
        (true, _) => (State::Completing, node),
        (false, true) => (State::Pending, format!("({})", waits_for(pod))),
        (false, false) if phase(pod) == "Running" => (State::Running, node),
        (false, false) => (State::Pending, "(Prolog)".to_owned()),
    }
}

/// Why the scheduler has not placed a pod.
fn waits_for(pod: &Pod) -> &'static str {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut waits =
        conditions.filter(|condition| condition.type_ == "PodScheduled" && condition.status != "True");
    match waits.next().and_then(|condition| condition.reason.as_deref()) {
        None => "None",
        Some("SchedulingGated") => "Priority",
        Some(_) => "Resources",
    }
}

impl Look<'_> {
    fn annotation(&self, name: &str) -> Option<&String> {
        self.job.metadata.annotations.as_ref()?.get(name)
    }

    fn row(&self, tasks: Option<String>, state: State, place: String) -> Row {
        let labels = self.job.metadata.labels.as_ref();
        let queue = labels.and_then(|labels| labels.get(QUEUE)).cloned();
        Row {
            id: self.id,
            tasks,
            queue: queue.unwrap_or_else(|| muster_scheduler_api::DEFAULT_QUEUE.to_owned()),
            name: self.annotation(names::NAME).cloned().unwrap_or_default(),
            user: self.annotation(names::USER).cloned().unwrap_or_default(),
            state,
            started: None,
            ended: None,
            place,
        }
    }

    /// How the job ended, if it did.
    fn outcome(&self) -> Option<State> {
        match board::progress(self.job) {
            Progress::Succeeded => Some(State::Completed),
            Progress::Failed if self.annotation(names::CANCELLED).is_some() => Some(State::Cancelled),
            Progress::Failed => {
                let late = |pod: &&Pod| {
                    let reason = pod.status.as_ref().and_then(|status| status.reason.as_deref());
                    reason == Some("DeadlineExceeded")
                };
                Some(if self.pods.iter().any(late) { State::Timeout } else { State::Failed })
            }
            _ => None,
        }
    }

    fn over(&self, state: State, tasks: Option<String>) -> Row {
        let status = self.job.status.clone().unwrap_or_default();
        let last =
            status.conditions.iter().flatten().filter_map(|one| one.last_transition_time.as_ref()).max();
        let nodes: BTreeSet<&str> =
            self.pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref()).collect();
        let place = nodes.into_iter().collect::<Vec<_>>().join(",");
        Row {
            started: status.start_time.map(|time| time.0),
            ended: last.map(|time| time.0),
            ..self.row(tasks, state, place)
        }
    }

    /// Why the job itself starts no pods.
    fn held(&self) -> Option<String> {
        let suspended = self.job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true);
        let reason = match () {
            () if !suspended => return None,
            () if self.annotation(names::REASON).is_some() => self.annotation(names::REASON).cloned(),
            () if self.annotation(names::HOLD).is_some() => None,
            () if self.annotation(names::DEPENDENCY).is_some() => Some("Dependency".to_owned()),
            () if self.annotation(names::REQUEUE).is_some() => Some("BeginTime".to_owned()),
            () => None,
        };
        Some(reason.unwrap_or_else(|| "JobHeldUser".to_owned()))
    }

    fn with_times(row: Row, pod: &Pod) -> Row {
        let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        Row { started: started.filter(|_| row.state != State::Pending), ..row }
    }

    fn single(&self) -> Row {
        let alive = self.pods.iter().find(|pod| !is_over(pod));
        match (alive, self.held()) {
            (Some(pod), _) => {
                let (state, place) = of_pod(pod);
                Self::with_times(self.row(None, state, place), pod)
            }
            (None, Some(reason)) => self.row(None, State::Pending, format!("({reason})")),
            // The job controller has not counted the end yet.
            (None, None) if !self.pods.is_empty() => self.row(None, State::Completing, String::new()),
            (None, None) => self.row(None, State::Pending, "(None)".to_owned()),
        }
    }

    fn tasks(&self, array: &Array) -> Vec<Row> {
        let index = |pod: &Pod| pod.metadata.annotations.as_ref()?.get(INDEX)?.parse::<u32>().ok();
        let by_index: BTreeMap<u32, &Pod> =
            self.pods.iter().filter_map(|pod| Some((index(pod)?, *pod))).collect();
        let status = self.job.status.as_ref();
        let done = [
            status.and_then(|status| status.completed_indexes.as_deref()),
            status.and_then(|status| status.failed_indexes.as_deref()),
        ];
        let done: BTreeSet<u32> = done.into_iter().flatten().flat_map(indexes).collect();
        let (mut rows, mut waiting, mut reason) = (Vec::new(), Vec::new(), None);
        for (index, task) in (0..).zip(array.tasks()) {
            match by_index.get(&index) {
                Some(pod) if !is_over(pod) => {
                    let (state, place) = of_pod(pod);
                    if state == State::Pending {
                        waiting.push(task);
                        reason.get_or_insert(place);
                    } else {
                        let row = self.row(Some(task.to_string()), state, place);
                        rows.push(Self::with_times(row, pod));
                    }
                }
                Some(_) => {}
                None if done.contains(&index) => {}
                None => waiting.push(task),
            }
        }
        if !waiting.is_empty() {
            let limited = array.at_once() < array.count();
            let limit = if limited { format!("%{}", array.at_once()) } else { String::new() };
            let held = self.held().map(|reason| format!("({reason})"));
            let limited = limited.then(|| "(JobArrayTaskLimit)".to_owned());
            let place = held.or(reason).or(limited).unwrap_or_else(|| "(None)".to_owned());
            rows.push(self.row(Some(format!("[{}{limit}]", compressed(&waiting))), State::Pending, place));
        }
        rows
    }
}

/// Reads the completion indexes of a status, such as `0-2,5`.
fn indexes(text: &str) -> impl Iterator<Item = u32> + '_ {
    text.split(',').flat_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<u32>(), last.parse::<u32>()) {
            (Ok(first), Ok(last)) => first..last.saturating_add(1),
            _ => 0..0,
        }
    })
}

/// Numbers in order as ranges: `0-2,5`.
fn compressed(numbers: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let range = |(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(annotations: Value, spec: Value, status: Value) -> Job {
        let mut whole = json!({ "template": {} });
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "metadata": { "name": "batch-7", "labels": { names::ID: "7", QUEUE: "research" }, "annotations": annotations },
            "spec": whole, "status": status,
        }))
        .unwrap()
    }

    fn pod(index: Option<u32>, node: &str, status: Value) -> Pod {
        let annotations = index.map_or(json!({}), |index| json!({ INDEX: index.to_string() }));
        serde_json::from_value(json!({
            "metadata": { "annotations": annotations }, "spec": { "nodeName": node, "containers": [] }, "status": status,
        }))
        .unwrap()
    }

    fn shown(job: &Job, pods: &[Pod]) -> Vec<String> {
        let pods: Vec<&Pod> = pods.iter().collect();
        let row = |row: Row| format!("{} {} {}", row.label(), row.state.code(), row.place);
        rows(job, &pods).into_iter().map(row).collect()
    }

    #[test]
    fn a_job_is_in_the_state_of_its_pod() {
        let plain = |status: Value| job(json!({}), json!({}), status);
        let running = json!({ "phase": "Running", "startTime": "2026-01-01T00:00:00Z" });
        let gated = json!({ "phase": "Pending", "conditions": [
            { "type": "PodScheduled", "status": "False", "reason": "Unschedulable" }] });
        assert_eq!(shown(&plain(json!({})), &[]), ["7 PD (None)"]);
        assert_eq!(shown(&plain(json!({})), &[pod(None, "", gated)]), ["7 PD (Resources)"]);
        assert_eq!(
            shown(&plain(json!({})), &[pod(None, "n1", json!({ "phase": "Pending" }))]),
            ["7 PD (Prolog)"]
        );
        assert_eq!(shown(&plain(json!({})), &[pod(None, "n1", running)]), ["7 R n1"]);
        assert_eq!(shown(&plain(json!({})), &[pod(None, "n1", json!({ "phase": "Succeeded" }))]), ["7 CG "]);
        let ended = |condition: &str| json!({ "conditions": [{ "type": condition, "status": "True" }] });
        assert_eq!(shown(&plain(ended("Complete")), &[]), ["7 CD "]);
        let late = pod(None, "n1", json!({ "phase": "Failed", "reason": "DeadlineExceeded" }));
        assert_eq!(shown(&plain(ended("Failed")), &[late]), ["7 TO n1"]);
        assert_eq!(shown(&plain(ended("Failed")), &[]), ["7 F "]);
        let cancelled = job(json!({ names::CANCELLED: "user" }), json!({}), ended("Failed"));
        assert_eq!(shown(&cancelled, &[]), ["7 CA "]);
        assert!(rows(&Job::default(), &[]).is_empty(), "no batch job");
    }

    #[test]
    fn a_job_that_does_not_start_says_why() {
        let suspended = |annotations: Value| job(annotations, json!({ "suspend": true }), json!({}));
        for (annotations, reason) in [
            (json!({}), "JobHeldUser"),
            (json!({ names::DEPENDENCY: "afterok:1" }), "Dependency"),
            (json!({ names::DEPENDENCY: "afterok:1", names::HOLD: "user" }), "JobHeldUser"),
            (
                json!({ names::DEPENDENCY: "afterok:1", names::REASON: "DependencyNeverSatisfied" }),
                "DependencyNeverSatisfied",
            ),
        ] {
            assert_eq!(shown(&suspended(annotations), &[]), [format!("7 PD ({reason})")]);
        }
    }

    #[test]
    fn an_array_shows_what_runs_and_what_waits() {
        let running = || json!({ "phase": "Running" });
        let status = json!({ "completedIndexes": "0,1", "failedIndexes": "2" });
        let array = job(json!({ names::ARRAY: "10-19%2" }), json!({}), status);
        let pods = [pod(Some(3), "n1", running()), pod(Some(4), "n2", running())];
        assert_eq!(shown(&array, &pods), ["7_13 R n1", "7_14 R n2", "7_[15-19%2] PD (JobArrayTaskLimit)"]);
        let held = job(json!({ names::ARRAY: "0-3,9" }), json!({ "suspend": true }), json!({}));
        assert_eq!(shown(&held, &[]), ["7_[0-3,9] PD (JobHeldUser)"]);
        let over = json!({ "conditions": [{ "type": "Complete", "status": "True" }] });
        assert_eq!(shown(&job(json!({ names::ARRAY: "0-3" }), json!({}), over), &[]), ["7_[0-3] CD "]);
    }
}
