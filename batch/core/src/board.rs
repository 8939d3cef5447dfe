//! All batch jobs of a cluster, and which of those that wait may start now.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::batch::v1::{Job, JobStatus};

use crate::dependency::{Dependency, DependencyError, Progress, Verdict};
use crate::names;

/// What to do with a job that waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// What it waited for has come: it starts, unless a person holds it.
    Start,
    /// What it waited for has come, and a person holds it.
    Forget,
    /// What it waits for cannot come any more.
    Never(String),
    /// Its pods are gone after a requeue: it starts again.
    Restart,
}

/// A job of the board.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    id: u64,
    /// The version in which it was seen.
    version: Option<String>,
    progress: Progress,
    dependency: Option<Result<Dependency, DependencyError>>,
    held: bool,
    /// Why it will never start, if that is written already.
    reason: Option<String>,
    /// It restarts, and has no pods any more.
    restarts: bool,
}

/// Where a job is: namespace and name.
pub type Place = (String, String);

/// All batch jobs that were seen.
#[derive(Debug, Default)]
pub struct Board {
    entries: BTreeMap<Place, Entry>,
    /// By namespace and number.
    progress: BTreeMap<(String, u64), Progress>,
    /// Those for which there may be something to do.
    waiting: BTreeSet<Place>,
}

/// How far a job is.
pub fn progress(job: &Job) -> Progress {
    let Some(status) = &job.status else { return Progress::Waiting };
    let holds = |name: &str| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.any(|condition| condition.type_ == name && condition.status == "True")
    };
    match () {
        () if holds("Complete") => Progress::Succeeded,
        () if holds("Failed") => Progress::Failed,
        () if status.ready.unwrap_or(0) > 0 || status.succeeded.is_some() || status.failed.is_some() => {
            Progress::Started
        }
        () => Progress::Waiting,
    }
}

fn place(job: &Job) -> Place {
    (job.metadata.namespace.clone().unwrap_or_default(), job.metadata.name.clone().unwrap_or_default())
}

fn annotation<'a>(job: &'a Job, name: &str) -> Option<&'a String> {
    job.metadata.annotations.as_ref()?.get(name)
}

impl Board {
    /// A job as it is now. Jobs without a number are none of the board's.
    pub fn note(&mut self, job: &Job) {
        let id = job.metadata.labels.as_ref().and_then(|labels| labels.get(names::ID)?.parse().ok());
        let Some(id) = id else { return self.forget(job) };
        let place = place(job);
        let suspended = job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true);
        let pods = |status: &JobStatus| status.active.unwrap_or(0) + status.terminating.unwrap_or(0);
        let has_pods = job.status.as_ref().is_some_and(|status| pods(status) > 0);
        let ended = matches!(progress(job), Progress::Succeeded | Progress::Failed);
        let entry = Entry {
            id,
            version: job.metadata.resource_version.clone(),
            progress: progress(job),
            dependency: annotation(job, names::DEPENDENCY).map(|text| text.parse()),
            held: annotation(job, names::HOLD).is_some(),
            reason: annotation(job, names::REASON).cloned(),
            restarts: annotation(job, names::REQUEUE).is_some()
                && suspended
                && !has_pods
                && job.status.as_ref().is_some_and(|status| status.start_time.is_none()),
        };
        let leaving = job.metadata.deletion_timestamp.is_some();
        if !leaving && !ended && (entry.restarts || (suspended && entry.dependency.is_some())) {
            self.waiting.insert(place.clone());
        } else {
            self.waiting.remove(&place);
        }
        self.progress.insert((place.0.clone(), id), entry.progress);
        self.entries.insert(place, entry);
    }

    /// A job that is gone.
    pub fn forget(&mut self, job: &Job) {
        let place = place(job);
        self.waiting.remove(&place);
        if let Some(entry) = self.entries.remove(&place) {
            self.progress.remove(&(place.0, entry.id));
        }
    }

    /// Forgets every job; a list of all of them follows.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// What to do now, with the version of the job that it is decided for.
    pub fn decisions(&self) -> Vec<(Place, Option<String>, Decision)> {
        let decide = |place: &Place| {
            let entry = self.entries.get(place)?;
            Some((place.clone(), entry.version.clone(), self.decide(&place.0, entry)?))
        };
        self.waiting.iter().filter_map(decide).collect()
    }

    fn decide(&self, namespace: &str, entry: &Entry) -> Option<Decision> {
        let never =
            |reason: String| (entry.reason.as_ref() != Some(&reason)).then_some(Decision::Never(reason));
        let dependency = match &entry.dependency {
            None => return (entry.restarts && !entry.held).then_some(Decision::Restart),
            Some(Err(error)) => return never(format!("InvalidDependency: {error}")),
            Some(Ok(dependency)) => dependency,
        };
        let progress =
            |id: u64| self.progress.get(&(namespace.to_owned(), id)).copied().unwrap_or(Progress::Unknown);
        match dependency.judge(progress) {
            Verdict::Waits => None,
            Verdict::Holds if entry.held => Some(Decision::Forget),
            Verdict::Holds => Some(Decision::Start),
            Verdict::Never => never("DependencyNeverSatisfied".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(id: u64, annotations: Value, suspended: bool, status: Value) -> Job {
        serde_json::from_value(json!({
            "metadata": { "name": names::job_name(id), "namespace": "n", "resourceVersion": "7",
                          "labels": { names::ID: id.to_string() }, "annotations": annotations },
            "spec": { "suspend": suspended, "template": {} }, "status": status,
        }))
        .unwrap()
    }

    fn ended(condition: &str) -> Value {
        json!({ "conditions": [{ "type": condition, "status": "True" }] })
    }

    fn decisions(board: &Board) -> Vec<(String, Decision)> {
        board.decisions().into_iter().map(|((_, name), _, decision)| (name, decision)).collect()
    }

    #[test]
    fn a_job_starts_when_what_it_waits_for_has_come() {
        let waits = || job(2, json!({ names::DEPENDENCY: "afterok:1" }), true, json!({}));
        let mut board = Board::default();
        board.note(&waits());
        board.note(&job(1, json!({}), false, json!({ "ready": 1 })));
        assert_eq!(decisions(&board), []);
        board.note(&job(1, json!({}), false, ended("Complete")));
        assert_eq!(board.decisions(), [(("n".into(), "batch-2".into()), Some("7".into()), Decision::Start)]);
        let held = json!({ names::DEPENDENCY: "afterok:1", names::HOLD: "user" });
        board.note(&job(2, held, true, json!({})));
        assert_eq!(decisions(&board), [("batch-2".to_owned(), Decision::Forget)]);
        board.note(&job(2, json!({}), false, json!({})));
        assert_eq!(decisions(&board), []);
    }

    #[test]
    fn a_job_that_can_never_start_says_so_once() {
        let never = Decision::Never("DependencyNeverSatisfied".to_owned());
        let mut board = Board::default();
        board.note(&job(1, json!({}), false, ended("Failed")));
        board.note(&job(2, json!({ names::DEPENDENCY: "afterok:1" }), true, json!({})));
        board.note(&job(3, json!({ names::DEPENDENCY: "afterany:99" }), true, json!({})));
        assert_eq!(decisions(&board), [("batch-2".to_owned(), never.clone()), ("batch-3".to_owned(), never)]);
        let told = json!({ names::DEPENDENCY: "afterok:1", names::REASON: "DependencyNeverSatisfied" });
        board.note(&job(2, told, true, json!({})));
        board.forget(&job(3, json!({}), true, json!({})));
        assert_eq!(decisions(&board), []);
        board.note(&job(2, json!({ names::DEPENDENCY: "bogus" }), true, json!({})));
        assert!(matches!(&decisions(&board)[..], [(_, Decision::Never(reason))] if reason.contains("bogus")));
    }

    #[test]
    fn a_requeued_job_starts_again_when_its_pods_are_gone() {
        let requeued = || json!({ names::REQUEUE: "true" });
        let mut board = Board::default();
        board.note(&job(1, requeued(), true, json!({ "active": 1, "startTime": "2026-01-01T00:00:00Z" })));
        assert_eq!(decisions(&board), []);
        board.note(&job(1, requeued(), true, json!({ "active": 0, "terminating": 1 })));
        assert_eq!(decisions(&board), []);
        board.note(&job(1, requeued(), true, json!({ "active": 0 })));
        assert_eq!(decisions(&board), [("batch-1".to_owned(), Decision::Restart)]);
        board.note(&job(1, requeued(), false, json!({})));
        assert_eq!(decisions(&board), []);
    }
}
