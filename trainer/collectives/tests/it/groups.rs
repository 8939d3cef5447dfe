//! Several groups at once, groups of some ranks, groups after a failure, and calls in the background.

use std::sync::{Barrier, mpsc};
use std::time::{Duration, Instant};

use muster_collectives::{Background, Communicator, Error, LossCause, Reduction};

use crate::support::{failure, on_hosts, on_threads, options};

#[test]
fn two_communicators_interleave() {
    let directory = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for rank in 0..3 {
            let directory = directory.path();
            scope.spawn(move || {
                let connect = |group: &str| {
                    let mut options = options(directory, rank, 3);
                    options.group = group.into();
                    Communicator::connect(&options).unwrap()
                };
                let (mut first, mut second) = (connect("first"), connect("second"));
                assert_ne!(first.session(), second.session());
                for round in 0..2000_i64 {
                    let (mut a, mut b) = ([round], vec![round; 5000]);
                    first.all_reduce_staged(&mut a, Reduction::Sum).unwrap();
                    if round % 3 == 0 {
                        first.barrier().unwrap();
                    }
                    second.all_reduce_staged(&mut b, Reduction::Maximum).unwrap();
                    assert_eq!((a[0], b[4999]), (3 * round, round));
                }
            });
        }
    });
}

fn split_and_split_again(mut world: Communicator) {
    let rank = world.rank();
    // Rank 6 joins none; the even and the odd ranks are numbered from behind.
    let colour = (rank < 6).then_some(rank as u32 % 2);
    let Some(mut group) = world.split(colour, -(rank as i64)).unwrap() else {
        assert_eq!(rank, 6);
        return world.barrier().unwrap();
    };
    assert_eq!((group.world_size(), group.rank()), (3, 2 - rank / 2));
    let mut sum = [rank as i64];
    group.all_reduce_staged(&mut sum, Reduction::Sum).unwrap();
    assert_eq!(sum, [if rank.is_multiple_of(2) { 6 } else { 9 }]);
    // Equal keys leave the order of the group that is split, and groups can be split again.
    let mut pair = group.split(Some(u32::from(group.rank() == 0)), 0).unwrap().unwrap();
    assert_eq!(pair.world_size(), if group.rank() == 0 { 1 } else { 2 });
    pair.barrier().unwrap();
    assert_eq!(group.hosts().len(), 3);
    world.barrier().unwrap();
}

#[test]
fn split_forms_groups_by_colour_in_the_order_of_keys() {
    on_threads(7, |_| (), split_and_split_again);
}

#[test]
fn split_forms_groups_within_and_between_hosts() {
    on_hosts(&[0, 0, 0, 1, 1, 2, 2], |_| (), split_and_split_again);
    on_hosts(&[0, 1, 0, 1, 0, 1, 2], |_| (), split_and_split_again);
}

/// Work for four ranks: the others go on without rank 1.
fn lose_rank_1() -> impl Fn(Communicator) + Sync {
    // A rank that leaves while others still connect would end their connecting.
    let all_connected = Barrier::new(4);
    move |group| {
        all_connected.wait();
        go_on_without_rank_1(group);
    }
}

fn go_on_without_rank_1(mut group: Communicator) {
    let rank = group.rank();
    let mut buffer = group.allocate::<f32>(100_000).unwrap();
    buffer.fill(rank as f32);
    if rank == 1 {
        return;
    }
    let error = failure(group.all_reduce(&mut buffer, Reduction::Sum));
    assert!(matches!(error, Error::PeerLost { rank: 1, cause: LossCause::Left, .. }), "{error}");
    assert!(buffer.iter().all(|value| *value == rank as f32));
    let mut group = group.rebuild(Duration::from_secs(30)).unwrap();
    assert_eq!((group.world_size(), group.rank()), (3, rank.saturating_sub(1)));
    let mut sum = [rank as i64];
    group.all_reduce_staged(&mut sum, Reduction::Sum).unwrap();
    assert_eq!(sum, [5]);
    assert_eq!(group.hosts()[1], "host-2");
}

#[test]
fn the_ranks_that_are_left_form_a_new_group_and_their_buffers_keep_their_values() {
    on_threads(4, |_| (), lose_rank_1());
}

#[test]
fn the_ranks_that_are_left_on_several_hosts_form_a_new_group() {
    on_hosts(&[0, 1, 0, 1], |_| (), lose_rank_1());
    on_hosts(&[0, 1, 2, 3], |_| (), lose_rank_1());
    on_hosts(&[0, 0, 1, 1], |_| (), lose_rank_1());
}

#[test]
fn a_group_that_works_is_not_rebuilt_and_a_silent_rank_is_given_up() {
    let (told, wait) = mpsc::channel();
    let wait = std::sync::Mutex::new(wait);
    let go_on_without_rank_2 = |mut group: Communicator| {
        if group.rank() == 2 {
            // Silent until the others have gone on without it.
            for _ in 0..2 {
                wait.lock().unwrap().recv_timeout(Duration::from_mins(1)).unwrap();
            }
            let error = failure(group.rebuild(Duration::from_secs(30)));
            assert!(matches!(error, Error::GivenUp { rank: 2 }), "{error}");
            return;
        }
        if group.rank() == 0 {
            group.aborter().abort();
        }
        let error = failure(group.barrier());
        assert!(matches!(error, Error::Aborted { rank: 0 }), "{error}");
        let mut group = group.rebuild(Duration::from_millis(50)).unwrap();
        let error = match group.barrier() {
            Ok(()) => failure(Communicator::rebuild(group, Duration::ZERO)),
            Err(error) => error,
        };
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
        told.send(()).unwrap();
    };
    on_threads(3, |_| (), go_on_without_rank_2);
    on_hosts(&[0, 1, 2], |_| (), go_on_without_rank_2);
    on_hosts(&[0, 0, 1], |_| (), go_on_without_rank_2);
}

#[test]
fn calls_in_the_background_end_in_any_order_of_waiting() {
    on_threads(
        3,
        |_| (),
        |group| {
            let background = Background::start(group).unwrap();
            let mut first = background.allocate::<i64>(20_000).wait().unwrap();
            let mut second = background.allocate::<i64>(3).wait().unwrap();
            first.fill(1);
            second.fill(2);
            let first = background.all_reduce(first, Reduction::Sum);
            let second = background.all_reduce(second, Reduction::Sum);
            // Given up, but made all the same: the ranks stay in step.
            drop(background.submit(Communicator::barrier));
            let third = background.submit(|group| {
                let mut data = vec![3_i64; 10];
                group.all_reduce_staged(&mut data, Reduction::Sum)?;
                Ok(data)
            });
            assert_eq!(third.wait().unwrap(), [9; 10]);
            assert!(second.wait().unwrap().iter().all(|value| *value == 6));
            assert!(first.poll().unwrap().unwrap().iter().all(|value| *value == 3));
        },
    );
}

#[test]
fn a_call_in_the_background_can_be_waited_for_and_aborted() {
    let (told, wait) = mpsc::channel();
    let wait = std::sync::Mutex::new(wait);
    let abort = |mut group: Communicator| {
        if group.rank() == 1 {
            // Comes only after rank 0 has given up.
            wait.lock().unwrap().recv_timeout(Duration::from_mins(1)).unwrap();
            let error = failure(group.barrier());
            assert!(matches!(error, Error::Aborted { rank: 0 }), "{error}");
            return;
        }
        let background = Background::start(group).unwrap();
        let pending = background.submit(Communicator::barrier);
        assert!(pending.poll().is_none());
        let error = failure(pending.wait_at_most(Duration::from_millis(1)));
        assert!(matches!(error, Error::StillRunning { .. }), "{error}");
        background.aborter().abort();
        assert!(matches!(failure(pending.wait()), Error::Aborted { rank: 0 }));
        // What is handed in after a failure fails too, and dropping does not hang.
        let late = background.submit(Communicator::barrier);
        drop(background);
        assert!(matches!(failure(late.wait()), Error::Aborted { rank: 0 }));
        told.send(()).unwrap();
    };
    on_threads(2, |_| (), abort);
    on_hosts(&[0, 1], |_| (), abort);
}

#[test]
fn a_rank_that_has_left_may_be_silent_while_the_others_pass_messages() {
    let silence = Duration::from_secs(1);
    let aborters = std::sync::Mutex::new(Vec::new());
    let all_connected = Barrier::new(3);
    on_hosts(
        &[0, 1, 2],
        |options| options.network.as_mut().unwrap().silence = silence,
        |mut group| {
            all_connected.wait();
            let rank = group.rank();
            if rank == 1 {
                // What is left of it keeps the connections open.
                aborters.lock().unwrap().push(group.aborter());
                return;
            }
            let (mut goes_on, began) = ([1_u8], Instant::now());
            while goes_on == [1] {
                if rank == 0 {
                    goes_on = [u8::from(began.elapsed() < 3 * silence)];
                    group.send(&goes_on, 2).unwrap();
                    group.receive(&mut [0_u8], 2).unwrap();
                } else {
                    group.receive(&mut goes_on, 0).unwrap();
                    group.send(&[0_u8], 0).unwrap();
                }
            }
        },
    );
}
