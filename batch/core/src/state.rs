//! In which state a batch job is, as `muster queue` tells it: one row for a job, and for an array one for each task that
//! runs and one for those that wait.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use muster_scheduler_api::labels::QUEUE;

use crate::dependency::Progress;
use crate::hosts;
use crate::work::Work;
use crate::{Array, names};

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

    /// Slurm's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Completing => "COMPLETING",
            Self::Pending => "PENDING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Timeout => "TIMEOUT",
            Self::Cancelled => "CANCELLED",
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
    /// How many nodes it has or wants.
    pub node_count: u32,
    /// The nodes that it is on.
    pub nodes: Vec<String>,
    /// Why it waits, in Slurm's word.
    pub reason: Option<String>,
    /// A pod of it that has no place yet.
    pub unplaced: Option<String>,
}

impl Row {
    /// `17`, `17_3` or `17_[4-9]`.
    pub fn label(&self) -> String {
        match &self.tasks {
            None => self.id.to_string(),
            Some(tasks) => format!("{}_{tasks}", self.id),
        }
    }

    /// The nodes, or in brackets why there are none.
    pub fn place(&self) -> String {
        match &self.reason {
            Some(reason) => format!("({reason})"),
            None => hosts::list(&self.nodes),
        }
    }
}

/// The rows of a job, given its pods; none for a job that is not a batch job.
pub fn rows(work: &Work, pods: &[&Pod]) -> Vec<Row> {
    let Some(id) = work.id() else { return Vec::new() };
    let look = Look { work, pods, id };
    let array = work.annotation(names::ARRAY).and_then(|text| text.parse::<Array>().ok());
    match (array, look.outcome()) {
        (None, None) => vec![look.single()],
        (None, Some(state)) => vec![look.over(state, None)],
        (Some(array), Some(state)) => vec![look.over(state, Some(format!("[{array}]")))],
        (Some(array), None) => look.tasks(&array),
    }
}

struct Look<'a> {
    work: &'a Work,
    pods: &'a [&'a Pod],
    id: u64,
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn is_over(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

/// The launcher of a job of several nodes is beside them.
fn is_launcher(pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(muster_trainer_api::label::REPLICA_TYPE))
        .is_some_and(|type_| type_ == "launcher")
}

/// The state of a pod that has not ended, and why it does not run.
fn of_pod(pod: &Pod) -> (State, Option<&'static str>) {
    match (pod.metadata.deletion_timestamp.is_some(), node(pod)) {
        (true, _) => (State::Completing, None),
        (false, None) => (State::Pending, Some(waits_for(pod))),
        (false, Some(_)) if phase(pod) == "Running" => (State::Running, None),
        (false, Some(_)) => (State::Pending, Some("Prolog")),
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
    fn row(&self, tasks: Option<String>, state: State) -> Row {
        let text = |name: &str| self.work.annotation(name).unwrap_or_default().to_owned();
        let queue = self.work.metadata().labels.as_ref().and_then(|labels| labels.get(QUEUE)).cloned();
        Row {
            id: self.id,
            tasks,
            queue: queue.unwrap_or_else(|| muster_scheduler_api::DEFAULT_QUEUE.to_owned()),
            name: text(names::NAME),
            user: text(names::USER),
            state,
            started: None,
            ended: None,
            node_count: self.work.nodes(),
            nodes: Vec::new(),
            reason: None,
            unplaced: None,
        }
    }

    fn waiting(&self, tasks: Option<String>, reason: &str) -> Row {
        Row { reason: Some(reason.to_owned()), ..self.row(tasks, State::Pending) }
    }

    /// A job or task that has pods.
    fn with_pod(&self, tasks: Option<String>, pod: &Pod, pods: &[&Pod]) -> Row {
        let (state, reason) = of_pod(pod);
        let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        let unplaced = node(pod).is_none().then(|| pod.metadata.name.clone()).flatten();
        Row {
            started: started.filter(|_| state != State::Pending),
            nodes: if reason.is_none() { places(pods) } else { Vec::new() },
            reason: reason.map(str::to_owned),
            unplaced,
            ..self.row(tasks, state)
        }
    }

    /// How the job ended, if it did.
    fn outcome(&self) -> Option<State> {
        match self.work.progress() {
            Progress::Succeeded => Some(State::Completed),
            Progress::Failed if self.work.annotation(names::CANCELLED).is_some() => Some(State::Cancelled),
            Progress::Failed => {
                let late = |pod: &&Pod| {
                    let reason = pod.status.as_ref().and_then(|status| status.reason.as_deref());
                    reason == Some("DeadlineExceeded")
                };
                let late = self.work.ran_out_of_time() || self.pods.iter().any(late);
                Some(if late { State::Timeout } else { State::Failed })
            }
            _ => None,
        }
    }

    fn over(&self, state: State, tasks: Option<String>) -> Row {
        let (counted, ended) = self.work.times();
        let starts =
            self.pods.iter().filter_map(|pod| Some(pod.status.as_ref()?.start_time.as_ref()?.0)).min();
        // Of several nodes the job itself says when it began to wait for them.
        let started = if self.work.nodes() > 1 { starts } else { counted };
        let nodes = places(self.pods);
        let reason = self.work.annotation(names::REASON).filter(|_| nodes.is_empty());
        Row { started, ended, reason: reason.map(str::to_owned), nodes, ..self.row(tasks, state) }
    }

    /// Why the job itself starts no pods.
    fn held(&self) -> Option<&str> {
        if !self.work.is_suspended() {
            return None;
        }
        let has = |name: &str| self.work.annotation(name).is_some();
        Some(match self.work.annotation(names::REASON) {
            Some(reason) => reason,
            None if has(names::HOLD) => "JobHeldUser",
            None if has(names::DEPENDENCY) => "Dependency",
            None if has(names::REQUEUE) => "BeginTime",
            None => "JobHeldUser",
        })
    }

    fn single(&self) -> Row {
        let alive: Vec<&Pod> = self.pods.iter().filter(|pod| !is_over(pod)).copied().collect();
        let unplaced = alive.iter().find(|pod| node(pod).is_none());
        let launcher = alive.iter().find(|pod| is_launcher(pod));
        let decisive = unplaced.or(launcher).or(alive.first());
        match (decisive, self.held()) {
            (Some(pod), _) => self.with_pod(None, pod, &alive),
            (None, Some(reason)) => self.waiting(None, reason),
            // The job's controller has not counted the end yet.
            (None, None) if !self.pods.is_empty() => self.row(None, State::Completing),
            (None, None) => self.waiting(None, "None"),
        }
    }

    fn tasks(&self, array: &Array) -> Vec<Row> {
        let Work::Job(job) = self.work else { return Vec::new() };
        let index = |pod: &Pod| pod.metadata.annotations.as_ref()?.get(INDEX)?.parse::<u32>().ok();
        let by_index: BTreeMap<u32, &Pod> =
            self.pods.iter().filter_map(|pod| Some((index(pod)?, *pod))).collect();
        let status = job.status.as_ref();
        let done = [
            status.and_then(|status| status.completed_indexes.as_deref()),
            status.and_then(|status| status.failed_indexes.as_deref()),
        ];
        let done: BTreeSet<u32> = done.into_iter().flatten().flat_map(indexes).collect();
        let (mut rows, mut waiting, mut first) = (Vec::new(), Vec::new(), None);
        for (index, task) in (0..).zip(array.tasks()) {
            match by_index.get(&index) {
                Some(pod) if !is_over(pod) => {
                    let row = self.with_pod(Some(task.to_string()), pod, &[pod]);
                    if row.state == State::Pending {
                        waiting.push(task);
                        first.get_or_insert(row);
                    } else {
                        rows.push(row);
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
            let tasks = Some(format!("[{}{limit}]", hosts::ranges(&waiting)));
            rows.push(match (self.held(), first) {
                (Some(reason), _) => self.waiting(tasks, reason),
                (None, Some(first)) => Row { tasks, ..first },
                (None, None) if limited => self.waiting(tasks, "JobArrayTaskLimit"),
                (None, None) => self.waiting(tasks, "None"),
            });
        }
        rows
    }
}

/// The nodes of pods, each once, without that of a launcher unless there is nothing else.
fn places(pods: &[&Pod]) -> Vec<String> {
    let of = |pods: &mut dyn Iterator<Item = &&Pod>| {
        pods.filter_map(|pod| node(pod)).map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let nodes = of(&mut pods.iter().filter(|pod| !is_launcher(pod)));
    let nodes = if nodes.is_empty() { of(&mut pods.iter()) } else { nodes };
    nodes.into_iter().collect()
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

#[cfg(test)]
mod tests;
