//! Calls that do not fit together are errors that name both.

use std::io::{Read, Write};
use std::time::Duration;

use muster_collectives::{Communicator, Error, Operation, Options, Reduction, Token};

use crate::support::{call_on, failure, on_host, on_hosts, on_threads, options, unused_address};

#[test]
fn different_calls_name_both_on_every_rank() {
    type Body = fn(&mut Communicator) -> Result<(), Error>;
    let cases: [(Body, &str); 5] = [
        (|group| group.all_reduce_staged(&mut [0_f32; 11], Reduction::Sum), "all_reduce(f32 × 11, sum)"),
        (|group| group.all_reduce_staged(&mut [0_i32; 10], Reduction::Sum), "all_reduce(i32 × 10, sum)"),
        (|group| group.all_reduce_staged(&mut [0_f32; 10], Reduction::Maximum), "all_reduce(f32 × 10, max)"),
        (
            |group| group.all_reduce_staged(&mut vec![0_f32; 2 << 20], Reduction::Sum),
            "all_reduce(f32 × 2097152, sum)",
        ),
        (Communicator::barrier, "barrier()"),
    ];
    for (odd, text) in cases {
        let disagree = |mut group: Communicator| {
            // Where ranks share a host, one that is behind may be told in the call that the others have just ended.
            let result = group.barrier().and_then(|()| match group.rank() {
                1 => odd(&mut group),
                _ => group.all_reduce_staged(&mut [0_f32; 10], Reduction::Sum),
            });
            let error = failure(result);
            assert!(
                matches!(failure(group.barrier()), Error::Mismatch { .. }),
                "a failed group stays failed"
            );
            error
        };
        let errors = on_threads(3, |_| (), disagree);
        let between_hosts = [&[0, 1, 2][..], &[0, 1, 1], &[0, 0, 1]];
        let between_hosts = between_hosts.into_iter().flat_map(|layout| on_hosts(layout, |_| (), disagree));
        for error in errors.into_iter().chain(between_hosts) {
            let message = error.to_string();
            assert!(message.contains(&format!("rank 1 makes call 2 {text}")), "{message}");
            assert!(message.contains("call 2 all_reduce(f32 × 10, sum)"), "{message}");
            let Error::Mismatch { rank, other_rank, call, .. } = error else { panic!("{message}") };
            assert!(rank < other_rank && (rank == 1 || other_rank == 1));
            assert!(matches!(call.operation, Operation::AllReduce | Operation::Barrier));
        }
    }
}

#[test]
fn parts_that_do_not_fit_name_both_ranks_and_numbers() {
    type Body = fn(&mut Communicator) -> Result<(), Error>;
    // Rank 2 expects of rank 1, or gives to it, another number of elements than rank 1 has in mind.
    let cases: [(Body, usize, usize, [usize; 2]); 4] = [
        (
            |group| {
                let own = if group.rank() == 1 { 2 } else { 1 };
                let expected = if group.rank() == 2 { 3 } else { 2 };
                group.all_gather_v(&vec![0_i8; own], &mut vec![0; expected + 2], &[1, expected, 1])?;
                // Only the rank that is wrong must know at once.
                group.barrier()
            },
            1,
            2,
            [2, 3],
        ),
        (
            |group| {
                let counts = if group.rank() == 2 { vec![1, 3, 1] } else { vec![] };
                let send = vec![0_f32; counts.iter().sum()];
                let own = if group.rank() == 1 { 2 } else { 1 };
                group.scatter_v(&send, &counts, &mut vec![0.0; own], 2)
            },
            2,
            1,
            [3, 2],
        ),
        (
            |group| {
                let expected = if group.rank() == 2 { [1, 3, 1] } else { [1, 1, 1] };
                let mut receive = vec![0_f64; expected.iter().sum()];
                group.all_to_all_v(&[0.0; 3], &[1, 1, 1], &mut receive, &expected)
            },
            1,
            2,
            [1, 3],
        ),
        (
            |group| {
                let own = if group.rank() == 1 { 2 } else { 1 };
                let expected = [1, 3, 1];
                group.gather_v(&vec![0_i8; own], &mut [0; 5], &expected, 2)?;
                group.barrier()
            },
            1,
            2,
            [2, 3],
        ),
    ];
    for (body, sender, receiver, numbers) in cases {
        let run = |mut group: Communicator| failure(body(&mut group));
        let between_hosts = [&[0, 1, 2][..], &[0, 1, 1], &[0, 0, 1]];
        let between_hosts = between_hosts.into_iter().flat_map(|layout| on_hosts(layout, |_| (), run));
        for error in on_threads(3, |_| (), run).into_iter().chain(between_hosts) {
            let Error::Parts { from, to, sent, expected, .. } = error else { panic!("{error}") };
            assert_eq!((from, to, [sent, expected]), (sender, receiver, numbers));
        }
    }
}

#[test]
fn ranks_that_cut_their_data_differently_are_told() {
    let cut_differently = |mut group: Communicator| {
        let counts = if group.rank() == 0 { [2, 2] } else { [1, 3] };
        let mut receive = vec![0_i32; counts[group.rank()]];
        failure(group.reduce_scatter_v(&[0; 4], &mut receive, &counts, Reduction::Sum))
    };
    let errors = on_threads(2, |_| (), cut_differently);
    for error in errors.into_iter().chain(on_hosts(&[0, 1], |_| (), cut_differently)) {
        assert!(matches!(error, Error::Parts { .. }), "{error}");
    }
}

#[test]
fn a_message_that_is_not_the_expected_one_names_both() {
    let misunderstand = |mut group: Communicator| {
        if group.rank() == 0 {
            group.send(&[1_f32; 3], 1).unwrap();
            failure(group.barrier())
        } else {
            failure(group.receive(&mut [0_f64; 3], 0))
        }
    };
    let errors = on_threads(2, |_| (), misunderstand);
    for error in errors.into_iter().chain(on_hosts(&[0, 1], |_| (), misunderstand)) {
        assert_eq!(
            error.to_string(),
            "the ranks disagree: rank 0 makes call 0 send(f32 × 3, to rank 1) but rank 1 makes call 0 \
             receive(f64 × 3, from rank 0)"
        );
    }
}

#[test]
fn unusable_arguments_are_refused_without_ending_the_group() {
    on_threads(
        2,
        |_| (),
        |mut group| {
            assert!(matches!(group.broadcast(&mut [0_f32], 2), Err(Error::InvalidArgument(_))));
            assert!(matches!(group.all_gather(&[0_f32; 2], &mut [0_f32; 3]), Err(Error::InvalidArgument(_))));
            let mismatch = group.all_gather_v(&[0_i8; 2], &mut [0; 5], &[2, 2]).unwrap_err();
            assert_eq!(mismatch.to_string(), "`receive` holds 5 elements, its parts [2, 2]");
            let missing = group.reduce_scatter_v(&[0_i8; 2], &mut [], &[2], Reduction::Sum).unwrap_err();
            assert_eq!(missing.to_string(), "1 counts are not one for each of 2 ranks");
            let itself = group.send(&[0_i8], group.rank()).unwrap_err();
            assert!(itself.to_string().starts_with("cannot send to rank"), "{itself}");
            assert!(matches!(group.allocate::<f32>(1 << 30), Err(Error::ArenaFull { .. })));
            group.barrier().unwrap();
        },
    );
}

#[test]
fn a_buffer_of_another_group_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = Communicator::connect(&options(directory.path(), 0, 1)).unwrap();
    let second = Communicator::connect(&options(directory.path(), 0, 1)).unwrap();
    let mut buffer = second.allocate::<f32>(4).unwrap();
    assert!(matches!(first.all_reduce(&mut buffer, Reduction::Sum), Err(Error::InvalidArgument(_))));
}

fn connect_two(adjust: impl Fn(&mut Options) + Sync) -> Vec<Result<Communicator, Error>> {
    let directory = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..2)
            .map(|rank| {
                let mut options = options(directory.path(), rank, 2);
                options.join_deadline = Duration::from_millis(300);
                adjust(&mut options);
                scope.spawn(move || Communicator::connect(&options))
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn ranks_that_expect_another_world_are_told() {
    let results = connect_two(|options| options.world_size = 2 + options.rank);
    let [first, second] = &results[..] else { panic!() };
    let message = second.as_ref().unwrap_err().to_string();
    assert_eq!(message, "rank 0 refused rank 1: rank 1 expects 3 ranks, rank 0 expects 2");
    let message = first.as_ref().unwrap_err().to_string();
    assert!(message.starts_with("rank 1 of 2 did not join"), "{message}");
    assert!(message.contains("refused: rank 1 expects 3 ranks"), "{message}");
}

#[test]
fn a_rank_of_an_older_generation_is_refused() {
    let results = connect_two(|options| options.generation = 7 - options.rank as u64);
    let message = results[1].as_ref().unwrap_err().to_string();
    assert!(message.contains("belongs to generation 6 of the group, rank 0 to 7"), "{message}");
}

#[test]
fn ranks_that_never_come_are_named_at_the_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let connect = |rank| {
        let mut options = options(directory.path(), rank, 4);
        options.join_deadline = Duration::from_millis(50);
        Communicator::connect(&options).unwrap_err()
    };
    let error = connect(0);
    assert!(matches!(&error, Error::NotJoined { missing, .. } if *missing == [1, 2, 3]), "{error}");
    let error = connect(2);
    assert!(matches!(&error, Error::NoRendezvous { rank: 2, .. }), "{error}");
    assert!(error.to_string().contains("rank 0 is not there"), "{error}");
}

#[test]
fn a_long_directory_name_still_holds_a_socket() {
    let directory = tempfile::tempdir().unwrap();
    let long = directory.path().join("d".repeat(120));
    std::fs::create_dir(&long).unwrap();
    std::thread::scope(|scope| {
        for rank in 0..2 {
            let options = options(&long, rank, 2);
            scope.spawn(move || Communicator::connect(&options).unwrap().barrier().unwrap());
        }
    });
}

#[test]
fn every_pair_of_different_collectives_is_noticed_between_hosts() {
    type Body = fn(&mut Communicator) -> Result<(), Error>;
    let calls: [(Body, Operation); 9] = [
        (Communicator::barrier, Operation::Barrier),
        (|group| group.broadcast(&mut [0_f32; 6], 0), Operation::Broadcast),
        (|group| group.reduce(&mut [0_f32; 6], Reduction::Sum, 1), Operation::Reduce),
        (|group| group.all_gather(&[0_f32; 6], &mut [0.0; 18]), Operation::AllGather),
        (|group| group.reduce_scatter(&[0_f32; 6], &mut [0.0; 2], Reduction::Sum), Operation::ReduceScatter),
        (|group| group.gather(&[0_f32; 6], &mut [0.0; 18], 2), Operation::Gather),
        (|group| group.scatter(&[0_f32; 18], &mut [0.0; 6], 0), Operation::Scatter),
        (|group| group.all_to_all(&[0_f32; 6], &mut [0.0; 6]), Operation::AllToAll),
        (
            |group| group.reduce_scatter_v(&[0_f32; 6], &mut [0.0; 2], &[2; 3], Reduction::Sum),
            Operation::ReduceScatterV,
        ),
    ];
    for (first, first_name) in calls {
        for (second, second_name) in calls.into_iter().filter(|(_, name)| *name != first_name) {
            let errors = on_hosts(
                &[0, 0, 1],
                |_| (),
                |mut group| failure(if group.rank() == 2 { second(&mut group) } else { first(&mut group) }),
            );
            for error in errors {
                let Error::Mismatch { rank, call, other_rank, other_call } = error else { panic!("{error}") };
                assert!(rank < 2 && other_rank == 2);
                assert_eq!((call.operation, other_call.operation), (first_name, second_name));
            }
        }
    }
}

#[test]
fn a_rank_without_the_token_is_turned_away() {
    let address = unused_address();
    let directory = tempfile::tempdir().unwrap();
    let connect = |rank: usize, secret: &str| {
        let mut options = options(directory.path(), rank, 2);
        on_host(&mut options, directory.path(), rank, &address);
        options.network.as_mut().unwrap().token = Token::new(secret);
        options.join_deadline = Duration::from_millis(300);
        Communicator::connect(&options).unwrap_err().to_string()
    };
    std::thread::scope(|scope| {
        let leader = scope.spawn(|| connect(0, "right"));
        let refused = connect(1, "wrong");
        assert!(refused.contains("rank 0 refused rank 1: it does not know the group's token"), "{refused}");
        let leader = leader.join().unwrap();
        assert!(
            leader.contains("rank 1 of 2 did not join at 127.") && leader.contains("(refused: it does not"),
            "{leader}"
        );
    });
}

#[test]
fn strangers_at_the_door_keep_nobody_out() {
    let strangers = std::sync::Mutex::new(Vec::new());
    let send_strangers = |options: &mut Options| {
        if options.rank == 0 {
            return;
        }
        // Rank 0 is on its way; they come before the others do.
        let address = &options.network.as_ref().unwrap().address;
        let call = || call_on(address);
        let silent = call();
        let mut lost = call();
        lost.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut endless = call();
        // Refused before all of it is sent, perhaps.
        let _ = endless.write_all(&vec![0xff; 100_000]);
        drop(call());
        strangers.lock().unwrap().extend([silent, lost, endless]);
    };
    on_hosts(&[0, 1, 2], send_strangers, |mut group| group.barrier().unwrap());
    for mut stranger in strangers.into_inner().unwrap() {
        // Sent away, at the latest when the door closed.
        let mut said = Vec::new();
        let _ = stranger.read_to_end(&mut said);
        assert!(said.starts_with(b"MUSTERNT"));
    }
}
