//! Ranks that are lost while the others wait for their devices.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use muster_collectives::{Communicator as Host, Options as HostOptions, Reduction};
use muster_nccl::{Communicator, Error, Options, Pending, Watch};

use crate::fake::{Fake, join};
use crate::host_queue::HostQueue;

const ROLE: &str = "watching::role_of_a_rank_that_is_killed";

fn host_options(directory: &Path, rank: usize) -> HostOptions {
    HostOptions { host: format!("node-{rank}"), ..HostOptions::new(directory, "watched", rank, 3) }
}

/// Not a test by itself: what the third rank does as a process of its own.
#[test]
fn role_of_a_rank_that_is_killed() {
    let Ok(directory) = std::env::var("MUSTER_TEST_DIRECTORY") else { return };
    let host = Host::connect(&host_options(Path::new(&directory), 2)).unwrap();
    let _watch = Watch::start(host, []).unwrap();
    // Until it is killed, or whoever started it is gone.
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn a_process_that_is_killed_ends_the_waits_of_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::get();
    let id = fake.new_id();
    let mut third = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", ROLE])
        .env("MUSTER_TEST_DIRECTORY", directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let survivor = |rank: usize| {
        let host = Host::connect(&host_options(directory.path(), rank)).unwrap();
        let mut group = join(id, &Options::new(rank, 3)).unwrap();
        let watch = Watch::start(host, [group.aborter()]).unwrap();
        let mut buffer = group.allocate::<f32>(1 << 10).unwrap();
        let error = group.all_reduce(&mut buffer, Reduction::Sum).and_then(Pending::wait).unwrap_err();
        // The group of processes that failed can be rebuilt.
        (error.to_string(), watch.stop().is_some())
    };
    std::thread::scope(|scope| {
        // The library knows ranks as threads: the third one joins here, and never makes a call.
        let silent = scope.spawn(|| join(id, &Options::new(2, 3)).unwrap());
        let survivors = [0, 1].map(|rank| {
            let survivor = &survivor;
            scope.spawn(move || survivor(rank))
        });
        fake.wait_for_arrivals(id, 0, 2);
        third.kill().unwrap();
        third.wait().unwrap();
        for (rank, survivor) in survivors.into_iter().enumerate() {
            let (error, is_given_back) = survivor.join().unwrap();
            let expected = format!(
                "rank {rank} on this host: the group was aborted: lost rank 2 on node-2: its process ended"
            );
            assert!(error.starts_with(&expected), "{error}");
            assert!(is_given_back);
        }
        silent.join().unwrap().aborter().abort("the others are gone");
    });
    fake.check(id);
}

/// A thread for each of three ranks, with a group of processes and one of devices.
fn with_watched_ranks<R: Send>(work: impl Fn(Host, Communicator<HostQueue>) -> R + Sync) -> Vec<R> {
    let directory = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let (work, directory) = (&work, directory.path());
        let ranks: Vec<_> = (0..3)
            .map(|rank| {
                scope.spawn(move || {
                    let mut host = Host::connect(&host_options(directory, rank)).unwrap();
                    let options = Options::new(rank, 3);
                    let nccl = &Fake::get().nccl;
                    let group =
                        Communicator::join_through(nccl, &mut host, &HostQueue::new(), &options).unwrap();
                    work(host, group)
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn the_loss_of_a_rank_ends_the_waits_of_the_others_and_is_named() {
    let errors = with_watched_ranks(|host, mut group| {
        let mut buffer = group.upload(&[1_i32; 5]).unwrap();
        if group.rank() == 2 {
            // As a process that is killed: nothing is said, and nothing ends in order.
            group.aborter().abort("killed");
            drop(host);
            return None;
        }
        let watch = Watch::start(host, [group.aborter()]).unwrap();
        // No deadline helps: the usual one is a minute.
        let error = group.all_reduce(&mut buffer, Reduction::Sum).and_then(Pending::wait);
        let Err(Error::Aborted { cause, host, .. }) = error else { panic!("{error:?}") };
        assert_eq!(host, format!("node-{}", group.rank()));
        assert_eq!(watch.loss(), Some(cause.clone()));
        // A group that comes later is ended at once.
        let alone = Fake::get().new_id();
        let late = join(alone, &Options::new(0, 1)).unwrap();
        watch.add(late.aborter());
        assert!(matches!(late.close(), Err(Error::Aborted { .. })));
        Fake::get().check(alone);
        Some(cause)
    });
    for error in &errors[..2] {
        let error = error.as_ref().unwrap();
        assert!(error.starts_with("lost rank 2 on node-2: "), "{error}");
    }
}

#[test]
fn a_watch_ends_in_order_and_gives_the_processes_back() {
    let sums = with_watched_ranks(|host, mut group| {
        let watch = Watch::start(host, [group.aborter()]).unwrap();
        let mut buffer = group.upload(&[1_i32; 5]).unwrap();
        group.all_reduce(&mut buffer, Reduction::Sum).unwrap().wait().unwrap();
        let mut host = watch.stop().unwrap();
        // The group of devices is untouched, and that of processes too.
        group.all_reduce(&mut buffer, Reduction::Sum).unwrap().wait().unwrap();
        let mut sum = [group.download(&buffer).unwrap()[0]];
        host.all_reduce_staged(&mut sum, Reduction::Sum).unwrap();
        group.close().unwrap();
        sum[0]
    });
    assert_eq!(sums, [27, 27, 27]);
}
