//! Several replicas of `muster controller`, of which one leads in each role.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use super::parts::{Phase, until};
use crate::harness::gated::MEMBERS;
use crate::harness::{GatedJob, Home, Part, Parts, Program};

/// As short as a Lease allows, with room for a busy machine.
const LEASE: Duration = Duration::from_secs(3);

/// Replicas by their process ids.
struct Replicas {
    programs: BTreeMap<u32, Program>,
}

impl Replicas {
    async fn start(home: &Home, count: usize) -> Self {
        let mut programs = BTreeMap::new();
        for _ in 0..count {
            let kubeconfig = home.kubeconfig().display().to_string();
            let lease = format!("{}s", LEASE.as_secs());
            let words = [
                "controller",
                "--kubeconfig",
                &kubeconfig,
                "--leader-elect",
                "--leader-elect-lease-duration",
                &lease,
                "--leader-elect-renew-deadline",
                "2s",
                "--leader-elect-retry-period",
                "200ms",
            ];
            let mut program = Program::start(home.muster(&words));
            program.error_line_with("connected to").await;
            programs.insert(program.id(), program);
        }
        Self { programs }
    }

    /// The replica that leads in a role, once it is another than the one before.
    async fn leader(&self, parts: &Parts, role: &str, before: Option<u32>) -> u32 {
        let mut leader = 0;
        until("a replica leads", async || {
            let lease = parts.object(&format!("lease/muster-{role}")).await;
            let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
            leader = holder.split('_').nth(1).and_then(|process| process.parse().ok()).unwrap_or(0);
            self.programs.contains_key(&leader) && before != Some(leader)
        })
        .await;
        leader
    }

    async fn stop(self) {
        for (_, program) in self.programs {
            program.signal(Signal::TERM);
            let finished = program.finish().await;
            assert_eq!(finished.code, 0, "{}", finished.stderr);
        }
    }
}

async fn kill_a_worker(parts: &Parts, job: &GatedJob) {
    super::worker::kill_rank(job, 2).await;
    until("the gang is restarted", async || job.restarts(&parts.home).await == 1).await;
    until("the worker runs again", async || job.starts(2) == 2).await;
}

#[tokio::test]
async fn another_replica_takes_over_from_a_leader_that_is_killed_frozen_or_stopped() {
    let parts = Parts::start_without(&[Part::Trainer, Part::Scheduler]).await;
    let mut replicas = Replicas::start(&parts.home, 3).await;
    let job = GatedJob::write(&parts.home, "killed");
    Phase::Running.reach(&parts.home, &job).await;

    // Killed: the next one has the lease to wait for, and then goes on with the job.
    let first = replicas.leader(&parts, "trainer", None).await;
    let program = replicas.programs.remove(&first).expect("it runs");
    program.signal(Signal::KILL);
    program.ended().await;
    let killed = Instant::now();
    let second = replicas.leader(&parts, "trainer", Some(first)).await;
    assert!(killed.elapsed() < LEASE * 4, "took over after {:?}", killed.elapsed());
    kill_a_worker(&parts, &job).await;
    job.open();
    job.assert_ends_well(&parts.home, 1).await;

    // Frozen past its lease: another leads, and the one that wakes up does nothing more.
    let job = GatedJob::write(&parts.home, "frozen");
    Phase::Running.reach(&parts.home, &job).await;
    replicas.programs[&second].signal(Signal::STOP);
    let third = replicas.leader(&parts, "trainer", Some(second)).await;
    replicas.programs[&second].signal(Signal::CONT);
    let woken = replicas.programs.get_mut(&second).expect("it runs");
    woken.error_line_with("lease").await;
    kill_a_worker(&parts, &job).await;
    job.open();
    job.assert_ends_well(&parts.home, 1).await;

    // Stopped: it hands the lease on.
    let job = GatedJob::write(&parts.home, "stopped");
    Phase::Running.reach(&parts.home, &job).await;
    let program = replicas.programs.remove(&third).expect("it runs");
    program.signal(Signal::TERM);
    let stopped = Instant::now();
    assert_eq!(program.finish().await.code, 0);
    replicas.leader(&parts, "trainer", Some(third)).await;
    assert!(stopped.elapsed() < LEASE, "took over after {:?}", stopped.elapsed());
    job.open();
    job.assert_ends_well(&parts.home, 0).await;
    for member in MEMBERS {
        assert!(!parts.object(&job.pod(member)).await.is_null());
    }
    replicas.stop().await;
    parts.stop().await;
}
