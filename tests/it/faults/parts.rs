//! One part of the cluster is killed with SIGKILL, in every phase of a job, and started again.

use std::time::Duration;

use tokio::time::{Instant, interval};

use crate::harness::gated::MEMBERS;
use crate::harness::program::DEADLINE;
use crate::harness::{GatedJob, Home, Part, Parts};

/// Where a job is when something breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is written, nothing more is known.
    Written,
    /// Its pods are there.
    Created,
    /// They have their nodes.
    Starting,
    /// All of them run.
    Running,
    /// Their programs end.
    Finishing,
    /// It is being deleted, with pods that run.
    Deleted,
}

impl Phase {
    pub(super) const ALL: [Self; 6] =
        [Self::Written, Self::Created, Self::Starting, Self::Running, Self::Finishing, Self::Deleted];

    /// The name of the job that breaks in this phase.
    pub(super) fn job(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Brings a job to this phase.
    pub(super) async fn reach(self, home: &Home, job: &GatedJob) {
        job.submit(home).await;
        match self {
            Self::Written => {}
            Self::Created => {
                until("the pods are there", async || !pods(home, job).await.is_empty()).await;
            }
            Self::Starting => {
                crate::harness::cluster::wait_for(home, &job.pod("worker-1"), "condition=PodScheduled").await;
            }
            Self::Running | Self::Finishing | Self::Deleted => {
                for member in MEMBERS {
                    crate::harness::cluster::wait_for(home, &job.pod(member), "condition=Ready").await;
                }
                if self == Self::Finishing {
                    job.open();
                }
                if self == Self::Deleted {
                    let words = ["delete", &job.reference(), "--wait=false"];
                    home.run_kubectl(&words).await.succeeded();
                }
            }
        }
    }
}

async fn pods(home: &Home, job: &GatedJob) -> String {
    let selector = format!("training.kubeflow.org/job-name={}", job.name);
    home.run_kubectl(&["get", "pods", "-l", &selector, "-o", "name"]).await.succeeded().stdout
}

pub(crate) async fn until(what: &str, holds: impl AsyncFnMut() -> bool) {
    until_or(what, holds, async || String::new()).await;
}

/// The same; shows what is there instead when it does not come about.
async fn until_or(what: &str, mut holds: impl AsyncFnMut() -> bool, instead: impl AsyncFn() -> String) {
    let deadline = Instant::now() + DEADLINE;
    let mut every = interval(Duration::from_millis(20));
    loop {
        every.tick().await;
        if holds().await {
            return;
        }
        assert!(Instant::now() < deadline, "not in time: {what}: {}", instead().await);
    }
}

/// Nothing of a deleted job is in the API, on the disk or in the kernel.
pub(super) async fn assert_gone(home: &Home, job: &GatedJob) {
    let kinds = "pytorchjobs,pods,services,endpointslices,gangreservations";
    let listed = async || home.run_kubectl(&["get", kinds, "-o", "name"]).await.succeeded().stdout;
    until_or("the job's objects are gone", async || !listed().await.contains(&job.name), &listed).await;
    let folders = ["pods", "logs", "peers"].map(|folder| home.path().join("node").join(folder));
    until("the pods' folders are gone", async || {
        let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten());
        entries.count() == 0
    })
    .await;
}

/// Kills the part in every phase of a job; the job succeeds, or is gone if it was deleted.
async fn survives_the_death_of(part: Part, alone: &[Part]) {
    let mut parts = Parts::start(alone).await;
    for phase in Phase::ALL {
        let job = GatedJob::write(&parts.home, &phase.job());
        phase.reach(&parts.home, &job).await;
        parts.crash(part).await;
        if phase == Phase::Deleted {
            assert_gone(&parts.home, &job).await;
            continue;
        }
        job.open();
        job.assert_ends_well(&parts.home, 1).await;
        parts.kubectl(&["delete", &job.reference()]).await.succeeded();
        assert_gone(&parts.home, &job).await;
    }
    parts.stop().await;
}

#[tokio::test]
async fn the_api_server_is_killed_in_every_phase_of_a_job() {
    survives_the_death_of(Part::Server, &Part::ALL).await;
}

#[tokio::test]
async fn the_node_is_killed_in_every_phase_of_a_job() {
    survives_the_death_of(Part::Node, &[Part::Node]).await;
}

#[tokio::test]
async fn the_trainer_is_killed_in_every_phase_of_a_job() {
    survives_the_death_of(Part::Trainer, &[Part::Trainer]).await;
}

#[tokio::test]
async fn the_scheduler_is_killed_in_every_phase_of_a_job() {
    survives_the_death_of(Part::Scheduler, &[Part::Scheduler]).await;
}

#[tokio::test]
async fn the_built_in_controllers_are_killed_in_every_phase_of_a_job() {
    survives_the_death_of(Part::BuiltIn, &[Part::BuiltIn]).await;
}

#[tokio::test]
async fn a_controller_that_says_it_is_connected_outlives_the_server() {
    let controllers = [Part::Trainer, Part::Scheduler, Part::BuiltIn];
    let mut parts = Parts::start(&controllers).await;
    for part in controllers.repeat(3) {
        parts.crash(part).await;
        parts.crash(Part::Server).await;
    }
    let job = GatedJob::write(&parts.home, "job");
    job.open();
    job.submit(&parts.home).await;
    job.assert_ends_well(&parts.home, 0).await;
    parts.kubectl(&["delete", &job.reference()]).await.succeeded();
    assert_gone(&parts.home, &job).await;
    parts.stop().await;
}

#[tokio::test]
async fn a_node_that_keeps_its_pods_hands_them_to_the_next_one() {
    let mut parts = Parts::start(&[Part::Node]).await;
    let job = GatedJob::write(&parts.home, "job");
    Phase::Running.reach(&parts.home, &job).await;
    parts.terminate(Part::Node).await;
    parts.run_with(Part::Node, &["--keep-pods"]).await;
    parts.terminate(Part::Node).await;
    parts.run(Part::Node).await;
    job.open();
    job.assert_ends_well(&parts.home, 1).await;
    assert_eq!(job.restarts(&parts.home).await, 1, "the first node ended its pods, the second kept them");
    parts.stop().await;
}

#[tokio::test]
async fn down_stops_a_node_of_its_own_too() {
    let parts = Parts::start(&[Part::Node]).await;
    let job = GatedJob::write(&parts.home, "job");
    Phase::Running.reach(&parts.home, &job).await;
    let said = parts.muster(&["down"]).await.succeeded();
    assert_eq!(said.stderr, "stopped\n");
    parts.gone().await;
}
