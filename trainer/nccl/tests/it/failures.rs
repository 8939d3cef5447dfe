//! Ranks that do not come, errors that come later, and ends from outside.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use muster_collectives::Reduction;
use muster_nccl::{Aborter, Error, Joining, Options};

use crate::fake::{Fake, join};
use crate::host_queue::{HostQueue, foreign_buffer};

const SHORT: Duration = Duration::from_millis(700);

fn host(rank: usize) -> String {
    format!("node-{rank}")
}

fn options(rank: usize, world_size: usize) -> Options {
    Options { host: host(rank), ..Options::new(rank, world_size) }
}

#[test]
fn a_rank_that_never_joins_ends_the_joining_at_the_deadline() {
    let fake = Fake::get();
    let id = fake.new_id();
    let error = join(id, &Options { join_deadline: SHORT, ..options(0, 2) }).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("rank 0 on node-0: the 2 ranks did not join within 700ms"), "{text}");
    fake.check(id);
}

#[test]
fn a_library_that_never_gets_ready_ends_the_joining_at_the_deadline() {
    let fake = Fake::get();
    let id = fake.new_id();
    fake.never_join(id);
    let error = join(id, &Options { join_deadline: SHORT, ..options(0, 1) }).unwrap_err();
    assert!(matches!(error, Error::NotJoined { rank: 0, world_size: 1, .. }), "{error}");
    fake.check(id);
}

#[test]
fn joining_can_be_aborted_from_another_thread() {
    let fake = Fake::get();
    let id = fake.new_id();
    let joining = Joining::begin(&fake.nccl, id, &HostQueue::new(), &options(1, 2)).unwrap();
    let aborter = joining.aborter();
    let error = std::thread::scope(|scope| {
        let joining = scope.spawn(move || joining.finish().unwrap_err());
        assert!(aborter.abort("lost rank 0 on node-0: its process ended"));
        joining.join().unwrap()
    });
    let text = error.to_string();
    assert_eq!(text, "rank 1 on node-1: the group was aborted: lost rank 0 on node-0: its process ended");
    fake.check(id);
}

/// Two ranks, of which the second makes no call until it is told to; the first does `work`.
fn with_silent_partner(
    first: Options,
    work: impl FnOnce(muster_nccl::Communicator<HostQueue>, muster_nccl::UniqueId) + Send,
) {
    let fake = Fake::get();
    let id = fake.new_id();
    std::thread::scope(|scope| {
        let (done, until_done) = mpsc::channel::<()>();
        let partner = scope.spawn(move || {
            let group = join(id, &options(1, 2)).unwrap();
            let _ = until_done.recv();
            // Not closed in order: its partner is gone.
            group.aborter().abort("the partner is gone");
        });
        let working = scope.spawn(move || work(join(id, &first).unwrap(), id));
        let result = working.join();
        drop(done);
        partner.join().unwrap();
        result.unwrap();
    });
    fake.check(id);
}

#[test]
fn a_rank_that_does_not_come_to_a_call_ends_it_at_the_deadline() {
    with_silent_partner(Options { deadline: SHORT, ..options(0, 2) }, |mut group, _| {
        let mut buffer = group.upload(&[7_f32; 3]).unwrap();
        let reducing = group.all_reduce(&mut buffer, Reduction::Sum).unwrap();
        assert!(!reducing.is_complete());
        let error = reducing.wait().unwrap_err();
        let text = error.to_string();
        let expected = "rank 0 on node-0: call 0 all_reduce(f32 × 3, sum) did not end within 700ms";
        assert!(text.starts_with(expected), "{text}");
        // The group stays failed, and what lies on the device can be saved.
        let again = group.all_reduce(&mut buffer, Reduction::Sum).unwrap_err().to_string();
        assert!(again.contains("the group has failed before: ") && again.contains(expected), "{again}");
        assert_eq!(group.download(&buffer).unwrap(), [7.0; 3]);
        assert!(matches!(group.split(Some(0), 0), Err(Error::Failed { .. })));
        assert!(matches!(group.close(), Err(Error::Failed { .. })));
    });
}

#[test]
fn reading_a_buffer_behind_a_call_that_does_not_end_ends_at_the_deadline() {
    with_silent_partner(Options { deadline: SHORT, ..options(0, 2) }, |mut group, _| {
        let mut buffer = group.upload(&[7_i64; 3]).unwrap();
        let reducing = group.all_reduce(&mut buffer, Reduction::Sum).unwrap();
        let error = group.download(&buffer).unwrap_err();
        assert!(matches!(error, Error::Device { .. }), "{error}");
        assert!(matches!(reducing.wait(), Err(Error::Failed { .. })));
    });
}

#[test]
fn an_abort_from_another_thread_ends_every_wait_and_can_be_repeated() {
    with_silent_partner(options(0, 2), |mut group, id| {
        let mut buffer = group.upload(&[1_u8; 8]).unwrap();
        let waits: Vec<_> =
            (0..3).map(|_| group.all_reduce(&mut buffer, Reduction::Maximum).unwrap()).collect();
        let aborter = group.aborter();
        let causes: Vec<String> = std::thread::scope(|scope| {
            let waits: Vec<_> = waits
                .into_iter()
                .map(|wait| scope.spawn(move || wait.wait().unwrap_err().to_string()))
                .collect();
            // The stream is in the middle of the first.
            Fake::get().wait_for_arrivals(id, 0, 1);
            let aborts: Vec<_> = (0..4)
                .map(|_| {
                    let aborter = aborter.clone();
                    scope.spawn(move || aborter.abort("lost rank 1 on node-1"))
                })
                .collect();
            for abort in aborts {
                assert!(abort.join().unwrap());
            }
            waits.into_iter().map(|wait| wait.join().unwrap()).collect()
        });
        let expected = "rank 0 on node-0: the group was aborted: lost rank 1 on node-1";
        assert_eq!(causes, [expected; 3]);
        assert!(aborter.abort("late"));
        assert_eq!(group.all_reduce(&mut buffer, Reduction::Sum).unwrap_err().to_string(), expected);
    });
}

#[test]
fn an_aborter_outlives_its_group() {
    let id = Fake::get().new_id();
    let group = join(id, &options(0, 1)).unwrap();
    let aborter: Aborter = group.aborter();
    group.close().unwrap();
    assert!(aborter.abort("too late"));
    Fake::get().check(id);
}

#[test]
fn an_error_that_comes_later_ends_the_wait_and_says_what_the_library_says() {
    with_silent_partner(options(0, 2), |mut group, id| {
        let mut buffer = group.allocate::<f64>(10).unwrap();
        let reducing = group.all_reduce(&mut buffer, Reduction::Sum).unwrap();
        Fake::get().inject(id, 0, 6);
        let error = reducing.wait().unwrap_err();
        assert!(matches!(error, Error::Nccl { code: 6, .. }), "{error}");
        let text = error.to_string();
        assert!(text.starts_with("rank 0 on node-0: call 0 all_reduce(f64 × 10, sum): "), "{text}");
        assert!(text.ends_with("(connection closed by remote peer node-b<46711>)"), "{text}");
    });
}

#[test]
fn an_error_that_comes_with_the_end_of_the_work_is_not_taken_for_success() {
    let id = Fake::get().new_id();
    let mut group = join(id, &options(0, 1)).unwrap();
    let mut buffer = group.allocate::<f32>(3).unwrap();
    let reducing = group.all_reduce(&mut buffer, Reduction::Sum).unwrap();
    group.queue().fail_with_the_end(id, 0, 6);
    let error = reducing.wait().unwrap_err();
    assert!(matches!(error, Error::Nccl { code: 6, .. }), "{error}");
    drop(group);
    Fake::get().check(id);
}

#[test]
fn a_result_that_no_version_of_today_has_is_an_error() {
    with_silent_partner(options(0, 2), |mut group, id| {
        let mut buffer = group.allocate::<f64>(10).unwrap();
        Fake::get().inject(id, 0, 4711);
        let error = group.all_reduce(&mut buffer, Reduction::Sum).unwrap_err();
        assert!(matches!(error, Error::Nccl { code: 4711, .. }), "{error}");
    });
}

#[test]
fn ranks_that_make_different_calls_fail() {
    let id = Fake::get().new_id();
    let errors: Vec<String> = std::thread::scope(|scope| {
        let ranks: Vec<_> = [Reduction::Sum, Reduction::Minimum]
            .into_iter()
            .enumerate()
            .map(|(rank, reduction)| {
                scope.spawn(move || {
                    let deadline = Duration::from_secs(2);
                    let mut group = join(id, &Options { deadline, ..options(rank, 2) }).unwrap();
                    let mut buffer = group.allocate::<i32>(4).unwrap();
                    let result =
                        group.all_reduce(&mut buffer, reduction).and_then(muster_nccl::Pending::wait);
                    result.unwrap_err().to_string()
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    let mismatches = errors.iter().filter(|text| text.contains("the ranks make different calls")).count();
    assert!(mismatches >= 1, "{errors:?}");
    Fake::get().check(id);
}

#[test]
fn a_library_that_does_not_let_go_delays_nobody_for_ever() {
    let abort_deadline = Duration::from_millis(100);
    with_silent_partner(Options { abort_deadline, ..options(0, 2) }, |mut group, id| {
        let owner = Arc::new(());
        let mut buffer = foreign_buffer(group.queue(), 1, Arc::clone(&owner));
        let reducing = group.all_reduce(&mut buffer, Reduction::Sum).unwrap();
        Fake::get().hang_abort(id, true);
        assert!(!group.aborter().abort("enough"));
        assert!(matches!(reducing.wait(), Err(Error::Aborted { .. })));
        drop(buffer);
        assert_eq!(Arc::strong_count(&owner), 2, "memory that may still be written to is never freed");
        Fake::get().hang_abort(id, false);
        assert!((0..600).any(|_| group.aborter().abort("again")));
    });
}

#[test]
fn dropping_a_call_waits_for_it_and_the_communicator_remembers_how_it_ended() {
    with_silent_partner(Options { deadline: SHORT, ..options(0, 2) }, |mut group, _| {
        let owner = Arc::new(());
        let mut buffer = foreign_buffer(group.queue(), 1, Arc::clone(&owner));
        drop(group.all_reduce(&mut buffer, Reduction::Sum).unwrap());
        assert_eq!(Arc::strong_count(&owner), 2, "that of the buffer alone");
        assert!(matches!(group.all_reduce(&mut buffer, Reduction::Sum), Err(Error::Failed { .. })));
    });
}

#[test]
fn a_rank_that_panics_ends_its_group_at_once() {
    let id = Fake::get().new_id();
    std::thread::scope(|scope| {
        let partner = scope.spawn(move || join(id, &options(1, 2)).unwrap().aborter().abort("done"));
        let panicking = scope.spawn(move || {
            let _group = join(id, &options(0, 2)).unwrap();
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(panicking.join().is_err());
        partner.join().unwrap();
    });
    Fake::get().check(id);
}
