//! Ranks that are lost while the others wait for their devices.

use muster_collectives::{Communicator as Host, Options as HostOptions, Reduction};
use muster_nccl::{Communicator, Error, Options, Watch};

use crate::fake::Fake;
use crate::host_queue::HostQueue;

/// A thread for each of three ranks, with a group of processes and one of devices.
fn with_watched_ranks<R: Send>(work: impl Fn(Host, Communicator<HostQueue>) -> R + Sync) -> Vec<R> {
    let directory = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let (work, directory) = (&work, directory.path());
        let ranks: Vec<_> = (0..3)
            .map(|rank| {
                scope.spawn(move || {
                    let host = format!("node-{rank}");
                    let options = HostOptions { host, ..HostOptions::new(directory, "watched", rank, 3) };
                    let mut host = Host::connect(&options).unwrap();
                    let options = Options { host: options.host, ..Options::new(rank, 3) };
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
        let error = group.all_reduce(&mut buffer, Reduction::Sum).and_then(muster_nccl::Pending::wait);
        let Err(Error::Aborted { cause, .. }) = error else { panic!("{error:?}") };
        assert_eq!(watch.loss(), Some(cause.clone()));
        // A group that comes later is ended at once.
        let alone = Fake::get().new_id();
        let late = crate::fake::join(alone, &Options::new(0, 1)).unwrap();
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
