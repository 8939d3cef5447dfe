//! A process of a pod is killed with SIGKILL, in every phase in which it is there.

use rustix::process::Signal;

use super::parts::{Phase, assert_gone, until};
use crate::harness::gated::MEMBERS;
use crate::harness::home::processes;
use crate::harness::program::send;
use crate::harness::{Cluster, GatedJob};

/// The shell of a rank; a pod's processes see none of the test's paths, but their lock file is in its folder.
fn shell_of(job: &GatedJob, rank: usize) -> Option<u32> {
    let lock = job.lock(rank);
    processes().into_iter().find(|process| {
        let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
        let shown = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        shown.starts_with(b"sh\0")
            && descriptors
                .filter_map(|entry| std::fs::metadata(entry.path()).ok())
                .any(|file| is_same(&file, &lock))
    })
}

fn is_same(file: &std::fs::Metadata, path: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).is_ok_and(|other| (other.dev(), other.ino()) == (file.dev(), file.ino()))
}

pub(super) async fn kill_rank(job: &GatedJob, rank: usize) {
    let mut victim = None;
    until("the rank runs", async || {
        // Only after it has said so: the test counts.
        victim = shell_of(job, rank).filter(|_| job.starts(rank) > 0);
        victim.is_some()
    })
    .await;
    send(victim.expect("a process"), Signal::KILL);
}

#[tokio::test]
async fn a_worker_is_killed_in_every_phase_of_a_job() {
    let cluster = Cluster::start(&[]).await;
    let home = &cluster.home;
    for phase in Phase::ALL {
        let job = GatedJob::write(home, &phase.job());
        phase.reach(home, &job).await;
        match phase {
            // The worker may be done before the signal comes.
            Phase::Finishing | Phase::Deleted => {
                if let Some(shell) = shell_of(&job, 2) {
                    let _may_be_gone = rustix::process::kill_process(
                        rustix::process::Pid::from_raw(i32::try_from(shell).expect("an id")).expect("an id"),
                        Signal::KILL,
                    );
                }
            }
            // As soon as it is there.
            _ => kill_rank(&job, 2).await,
        }
        if phase == Phase::Deleted {
            assert_gone(home, &job).await;
            continue;
        }
        if phase != Phase::Finishing {
            until("the gang is restarted", async || job.restarts(home).await == 1).await;
            until("all ranks run again", async || {
                (0..MEMBERS.len()).all(|rank| job.starts(rank) >= 1) && job.starts(2) == 2
            })
            .await;
        }
        job.open();
        job.assert_ends_well(home, 1).await;
        cluster.kubectl(&["delete", &job.reference()]).await.succeeded();
        assert_gone(home, &job).await;
    }
    cluster.stop().await;
}
