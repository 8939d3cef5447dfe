//! All batch jobs of a cluster, and which of those that wait may start now.

use std::collections::{BTreeMap, BTreeSet};

use crate::dependency::{Dependency, DependencyError, Progress, Verdict};
use crate::names;
use crate::work::{Kind, Work};

/// Why a job waits for ever, as Slurm has it.
const NEVER: &str = "DependencyNeverSatisfied";

/// What to do with a job that waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// What it waited for has come: it starts, unless a person holds it.
    Start,
    /// What it waited for has come, and a person holds it.
    Forget,
    /// Some of what it waits for has come, or can come again; this is left.
    Narrow(Dependency),
    /// What it waits for cannot come any more.
    Never(String),
    /// The same, and it was submitted to be cancelled then.
    Cancel(String),
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
    cancelled_if_never: bool,
    /// Why it will never start, if that is written already.
    reason: Option<String>,
    /// It restarts, and has no pods any more.
    restarts: bool,
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The kind of its object.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Place {
    fn of(work: &Work) -> Self {
        let metadata = work.metadata();
        Self {
            kind: work.kind(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

/// Namespace and number of a job.
type Number = (String, u64);

/// All batch jobs that were seen.
#[derive(Debug, Default)]
pub struct Board {
    entries: BTreeMap<Place, Entry>,
    progress: BTreeMap<Number, Progress>,
    /// How jobs ended that are gone, as long as others may wait for them.
    gone: BTreeMap<Number, Progress>,
    /// Those for which there may be something to do.
    waiting: BTreeSet<Place>,
}

impl Board {
    /// A job as it is now. Jobs without a number are none of the board's.
    pub fn note(&mut self, work: &Work) {
        let Some(id) = work.id() else { return self.forget(work) };
        let place = Place::of(work);
        let requeued = work.annotation(names::REQUEUE).is_some();
        let entry = Entry {
            id,
            version: work.metadata().resource_version.clone(),
            progress: work.progress(),
            dependency: work.annotation(names::DEPENDENCY).map(str::parse),
            held: work.annotation(names::HOLD).is_some(),
            cancelled_if_never: work.annotation(names::KILL_ON_INVALID_DEPENDENCY).is_some(),
            reason: work.annotation(names::REASON).map(str::to_owned),
            restarts: requeued && work.has_stopped(),
        };
        let leaving = work.metadata().deletion_timestamp.is_some();
        let may_start = entry.restarts || (work.is_suspended() && entry.dependency.is_some());
        if !leaving && !work.is_over() && may_start {
            self.waiting.insert(place.clone());
        } else {
            self.waiting.remove(&place);
        }
        self.progress.insert((place.namespace.clone(), id), entry.progress);
        self.entries.insert(place, entry);
        self.forget_what_nobody_waits_for();
    }

    /// A job that is gone. How it ended is remembered for those who wait for it.
    pub fn forget(&mut self, work: &Work) {
        let place = Place::of(work);
        self.waiting.remove(&place);
        if let Some(entry) = self.entries.remove(&place) {
            self.leave((place.namespace, entry.id));
        }
        self.forget_what_nobody_waits_for();
    }

    /// Forgets every job of a kind; a list of all of them follows, and then [`Board::listed`].
    pub fn clear(&mut self, kind: Kind) {
        let of_kind: Vec<Place> = self.entries.keys().filter(|place| place.kind == kind).cloned().collect();
        for place in of_kind {
            if let Some(entry) = self.entries.remove(&place) {
                self.leave((place.namespace, entry.id));
            }
        }
        self.waiting.retain(|place| place.kind != kind);
    }

    /// All jobs are there again after [`Board::clear`].
    pub fn listed(&mut self) {
        self.forget_what_nobody_waits_for();
    }

    fn leave(&mut self, number: Number) {
        if let Some(end @ (Progress::Succeeded | Progress::Failed)) = self.progress.remove(&number) {
            self.gone.insert(number, end);
        }
    }

    fn forget_what_nobody_waits_for(&mut self) {
        let Self { gone, entries, waiting, .. } = self;
        gone.retain(|(namespace, id), _| {
            waiting.iter().filter(|place| place.namespace == *namespace).any(|place| {
                let dependency =
                    entries.get(place).and_then(|entry| entry.dependency.as_ref()?.as_ref().ok());
                dependency.is_some_and(|dependency| dependency.ids().any(|other| other == *id))
            })
        });
    }

    /// What to do now, with the version of the job that it is decided for.
    pub fn decisions(&self) -> Vec<(Place, Option<String>, Decision)> {
        let decide = |place: &Place| {
            let entry = self.entries.get(place)?;
            Some((place.clone(), entry.version.clone(), self.decide(&place.namespace, entry)?))
        };
        self.waiting.iter().filter_map(decide).collect()
    }

    fn decide(&self, namespace: &str, entry: &Entry) -> Option<Decision> {
        let told = |reason: &str| entry.reason.as_deref() == Some(reason);
        let dependency = match &entry.dependency {
            None => return (entry.restarts && !entry.held).then_some(Decision::Restart),
            Some(Err(error)) => {
                let reason = format!("InvalidDependency: {error}");
                return (!told(&reason)).then_some(Decision::Never(reason));
            }
            Some(Ok(dependency)) => dependency,
        };
        let progress = |id: u64| {
            let number = (namespace.to_owned(), id);
            let known = self.progress.get(&number).or_else(|| self.gone.get(&number));
            known.copied().unwrap_or(Progress::Unknown)
        };
        match dependency.judge(progress) {
            Verdict::Waits(left) if left == *dependency && entry.reason.is_none() => None,
            Verdict::Waits(left) => Some(Decision::Narrow(left)),
            Verdict::Holds if entry.held => Some(Decision::Forget),
            Verdict::Holds => Some(Decision::Start),
            Verdict::Never if entry.cancelled_if_never => Some(Decision::Cancel(NEVER.to_owned())),
            Verdict::Never => (!told(NEVER)).then(|| Decision::Never(NEVER.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::batch::v1::Job;
    use muster_trainer_api::MpiJob;
    use serde_json::{Value, json};

    use super::*;

    fn job(id: u64, annotations: Value, suspended: bool, status: Value) -> Work {
        let job: Job = serde_json::from_value(json!({
            "metadata": { "name": names::job_name(id), "namespace": "n", "resourceVersion": "7",
                          "labels": { names::ID: id.to_string() }, "annotations": annotations },
            "spec": { "suspend": suspended, "template": {} }, "status": status,
        }))
        .unwrap();
        job.into()
    }

    fn mpi_job(id: u64, annotations: Value, suspended: bool, condition: &str) -> Work {
        let job: MpiJob = serde_json::from_value(json!({
            "apiVersion": "kubeflow.org/v1", "kind": "MPIJob",
            "metadata": { "name": names::job_name(id), "namespace": "n",
                          "labels": { names::ID: id.to_string() }, "annotations": annotations },
            "spec": { "runPolicy": { "suspend": suspended }, "mpiReplicaSpecs": {} },
            "status": ended(condition),
        }))
        .unwrap();
        job.into()
    }

    fn ended(condition: &str) -> Value {
        json!({ "conditions": [{ "type": condition, "status": "True" }] })
    }

    fn decisions(board: &Board) -> Vec<(String, Decision)> {
        board.decisions().into_iter().map(|(place, _, decision)| (place.name, decision)).collect()
    }

    #[test]
    fn a_job_starts_when_what_it_waits_for_has_come() {
        let waits = || job(2, json!({ names::DEPENDENCY: "afterok:1" }), true, json!({}));
        let mut board = Board::default();
        board.note(&waits());
        board.note(&job(1, json!({}), false, json!({ "ready": 1 })));
        assert_eq!(decisions(&board), []);
        board.note(&job(1, json!({}), false, ended("Complete")));
        let place = Place { kind: Kind::Job, namespace: "n".to_owned(), name: "batch-2".to_owned() };
        assert_eq!(board.decisions(), [(place, Some("7".to_owned()), Decision::Start)]);
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

    #[test]
    fn what_came_counts_after_the_job_that_brought_it_is_gone() {
        let waits = |text: &str| job(3, json!({ names::DEPENDENCY: text }), true, json!({}));
        let ended_well = || job(1, json!({}), false, ended("Complete"));
        let runs = || job(2, json!({}), false, json!({ "ready": 1 }));
        let left: Dependency = "afterok:2".parse().unwrap();
        let mut board = Board::default();
        for work in [waits("afterok:1:2"), ended_well(), runs()] {
            board.note(&work);
        }
        assert_eq!(decisions(&board), [("batch-3".to_owned(), Decision::Narrow(left.clone()))]);
        // It is gone before that could be written, and the watch broke, too.
        board.forget(&ended_well());
        board.clear(Kind::Job);
        board.note(&waits("afterok:1:2"));
        board.note(&runs());
        board.listed();
        assert_eq!(decisions(&board), [("batch-3".to_owned(), Decision::Narrow(left))]);
        board.note(&waits("afterok:2"));
        assert_eq!(decisions(&board), []);
        assert!(board.gone.is_empty(), "nobody waits for it any more");
        board.note(&job(2, json!({}), false, ended("Complete")));
        assert_eq!(decisions(&board), [("batch-3".to_owned(), Decision::Start)]);
    }

    #[test]
    fn a_job_that_can_never_start_is_cancelled_if_it_was_submitted_so() {
        let annotations = json!({ names::DEPENDENCY: "afterok:1", names::KILL_ON_INVALID_DEPENDENCY: "yes" });
        let mut board = Board::default();
        board.note(&job(1, json!({}), false, ended("Failed")));
        board.note(&job(2, annotations, true, json!({})));
        let cancel = Decision::Cancel("DependencyNeverSatisfied".to_owned());
        assert_eq!(decisions(&board), [("batch-2".to_owned(), cancel)]);
    }

    #[test]
    fn a_job_that_failed_and_starts_again_is_waited_for_again() {
        let told = json!({ names::DEPENDENCY: "afterok:1", names::REASON: "DependencyNeverSatisfied" });
        let mut board = Board::default();
        board.note(&job(1, json!({}), false, json!({})));
        board.note(&job(2, told, true, json!({})));
        let whole = "afterok:1".parse().unwrap();
        assert_eq!(decisions(&board), [("batch-2".to_owned(), Decision::Narrow(whole))]);
    }

    #[test]
    fn jobs_of_several_nodes_wait_and_are_waited_for_alike() {
        let mut board = Board::default();
        board.note(&mpi_job(1, json!({}), false, "Running"));
        board.note(&mpi_job(2, json!({ names::DEPENDENCY: "afterok:1" }), true, "Suspended"));
        board.note(&job(3, json!({ names::DEPENDENCY: "after:1" }), true, json!({})));
        assert_eq!(decisions(&board), [("batch-3".to_owned(), Decision::Start)]);
        board.note(&mpi_job(1, json!({}), false, "Succeeded"));
        let start = |name: &str| (name.to_owned(), Decision::Start);
        assert_eq!(decisions(&board), [start("batch-3"), start("batch-2")]);
        board.note(&mpi_job(4, json!({ names::REQUEUE: "true" }), true, "Running"));
        assert_eq!(decisions(&board).len(), 2, "it has not stopped yet");
        board.note(&mpi_job(4, json!({ names::REQUEUE: "true" }), true, "Suspended"));
        assert_eq!(decisions(&board)[2], ("batch-4".to_owned(), Decision::Restart));
    }
}
