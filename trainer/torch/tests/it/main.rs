//! Requests on memory that somebody else owns, between groups of threads; no Python.

#![allow(unsafe_code, missing_docs, clippy::unwrap_used)]

use std::sync::{Arc, Barrier};
use std::time::Duration;

use muster_collectives::{DataType, Options, Reduction};
use muster_torch::{ElementType, Failure, Group, Kind, Request, Tensor};
use proptest::prelude::*;

const FLOAT: ElementType = ElementType::Number(DataType::F32);

/// Runs `work` on `size` ranks, each a thread with a group; gives the results in rank order.
fn on_ranks<R: Send>(size: usize, work: impl Fn(usize, Group) -> R + Sync) -> Vec<R> {
    let directory = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let (directory, work) = (directory.path(), &work);
        let rank = |rank| {
            move || {
                let mut options = Options::new(directory, "test", rank, size);
                options.host = format!("host-{rank}");
                options.arena_bytes = 0;
                options.deadline = Duration::from_secs(30);
                // As if these were some ranks of a larger job.
                let group = Group::connect(&options, (0..size).map(|rank| 10 + rank).collect()).unwrap();
                work(rank, group)
            }
        };
        let ranks: Vec<_> = (0..size).map(|number| scope.spawn(rank(number))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// The whole of `data` as a tensor, which must not outlive it.
fn tensor<T>(data: &mut [T], element: ElementType) -> Tensor {
    part(data, 0..data.len(), element)
}

fn part<T>(data: &mut [T], range: std::ops::Range<usize>, element: ElementType) -> Tensor {
    let address = data[range.clone()].as_mut_ptr().expose_provenance();
    // SAFETY: every test waits for its requests before it looks at the data again or drops it.
    unsafe { Tensor::new(address, range.len(), element) }.unwrap()
}

fn all_reduce(data: &mut [f32]) -> Request {
    Request::AllReduce { data: tensor(data, FLOAT), reduction: Reduction::Sum }
}

#[test]
fn requests_are_made_in_order_whoever_makes_them() {
    let sums = on_ranks(2, |rank, group| {
        let mut data = vec![vec![(rank + 1) as f32; 1000]; 50];
        let mut tickets = Vec::new();
        for (index, data) in data.iter_mut().enumerate() {
            if index % 3 == 0 {
                group.submit_and_wait(all_reduce(data), Box::new(())).unwrap();
            } else {
                tickets.push(group.submit(all_reduce(data), Box::new(())));
            }
        }
        for ticket in tickets {
            ticket.wait(Duration::MAX).unwrap().unwrap();
        }
        data.concat()
    });
    for sum in sums {
        assert!(sum.iter().all(|value| value.to_bits() == 3.0_f32.to_bits()));
    }
}

#[test]
fn what_keeps_the_memory_is_given_back_once_the_request_has_ended() {
    on_ranks(2, |_, group| {
        let memory = Arc::new(());
        let mut data = vec![1.0; 100_000];
        let ticket = group.submit(all_reduce(&mut data), Box::new(Arc::clone(&memory)));
        ticket.wait(Duration::MAX).unwrap().unwrap();
        assert_eq!(Arc::strong_count(&memory), 1);
    });
}

#[test]
fn a_part_of_the_whole_can_be_sent_in_place() {
    let wholes = on_ranks(3, |rank, group| {
        let mut whole = [0_i64; 6];
        whole[2 * rank..2 * rank + 2].fill(rank as i64 + 1);
        let element = ElementType::Number(DataType::I64);
        let send = part(&mut whole, 2 * rank..2 * rank + 2, element);
        let receive = tensor(&mut whole, element);
        group.submit_and_wait(Request::AllGather { send, receive, counts: None }, Box::new(())).unwrap();
        whole
    });
    assert_eq!(wholes, [[1, 1, 2, 2, 3, 3]; 3]);
}

#[test]
fn elements_without_arithmetic_are_moved_whole() {
    let received = on_ranks(2, |rank, group| {
        let element = ElementType::parse("complex128", 16).unwrap();
        // Rank 0 sends one element to each, rank 1 two to rank 0.
        let counts = if rank == 0 { (vec![1, 1], vec![1, 2]) } else { (vec![2, 0], vec![1, 0]) };
        let mut sent: Vec<u128> = (0..2).map(|index| (rank as u128) << 100 | index).collect();
        let mut received = vec![0_u128; counts.1.iter().sum()];
        let (send, receive) = (tensor(&mut sent, element), tensor(&mut received, element));
        let request = Request::AllToAll { send, receive, counts: Some(counts) };
        group.submit_and_wait(request, Box::new(())).unwrap();
        received
    });
    assert_eq!(received, [vec![0, 1 << 100, 1 << 100 | 1], vec![1]]);
}

#[test]
fn wrong_requests_leave_the_group_as_it_was() {
    on_ranks(2, |_, group| {
        let (mut long, mut short) = ([0.0_f32; 3], [0.0_f64; 3]);
        let send = tensor(&mut long, FLOAT);
        let receive = tensor(&mut short, ElementType::Number(DataType::F64));
        let mixed = Request::AllGather { send, receive, counts: None };
        let failure = group.submit_and_wait(mixed, Box::new(())).unwrap_err();
        assert_eq!(failure.kind, Kind::Invalid);
        assert_eq!(failure.message, "a tensor of f32 elements cannot be received as f64");
        let nobody = Request::Broadcast { data: tensor(&mut long, FLOAT), root: 2 };
        assert_eq!(group.submit_and_wait(nobody, Box::new(())).unwrap_err().kind, Kind::Invalid);
        group.submit_and_wait(Request::Barrier, Box::new(())).unwrap();
    });
}

#[test]
fn a_rank_that_leaves_is_named_as_the_job_knows_it() {
    let failures = on_ranks(3, |rank, group| {
        if rank == 2 {
            group.close();
            let late = group.submit(Request::Barrier, Box::new(()));
            return late.wait(Duration::MAX).unwrap().unwrap_err();
        }
        let mut data = [1.0; 8];
        group.submit_and_wait(all_reduce(&mut data), Box::new(())).unwrap_err()
    });
    let kinds: Vec<(Kind, Option<usize>)> =
        failures.iter().map(|Failure { kind, rank, .. }| (*kind, *rank)).collect();
    assert_eq!(kinds, [(Kind::PeerLost, Some(12)), (Kind::PeerLost, Some(12)), (Kind::Closed, None)]);
    assert!(failures[0].message.starts_with("lost rank 12 on host-2: "), "{}", failures[0]);
}

#[test]
fn an_aborted_group_fails_what_waits_in_it() {
    let handed_in = Barrier::new(2);
    let outcomes = on_ranks(2, |rank, group| {
        if rank == 1 {
            handed_in.wait();
            group.abort();
            return None;
        }
        let mut data = [[1.0; 8]; 3];
        let tickets: Vec<_> =
            data.iter_mut().map(|data| group.submit(all_reduce(data), Box::new(()))).collect();
        assert!(!group.is_idle());
        handed_in.wait();
        let ended = tickets.into_iter().map(|ticket| ticket.wait(Duration::MAX).unwrap());
        Some(ended.map(|outcome| outcome.unwrap_err().rank).collect::<Vec<_>>())
    });
    // Whether rank 1 was seen to abort or, a moment later, to leave.
    assert_eq!(outcomes[0], Some(vec![Some(11); 3]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn uneven_parts_arrive_where_they_belong(counts in prop::collection::vec(0_usize..9, 3)) {
        let results = on_ranks(3, |rank, group| {
            let total: usize = counts.iter().sum();
            let mut own = vec![rank as i32; counts[rank]];
            let mut whole = vec![-1_i32; total];
            let element = ElementType::Number(DataType::I32);
            let (send, receive) = (tensor(&mut own, element), tensor(&mut whole, element));
            let gather = Request::AllGather { send, receive, counts: Some(counts.clone()) };
            group.submit_and_wait(gather, Box::new(())).unwrap();
            let (send, receive) = (tensor(&mut whole, element), tensor(&mut own, element));
            let scatter = Request::ReduceScatter {
                send,
                receive,
                counts: Some(counts.clone()),
                reduction: Reduction::Sum,
            };
            group.submit_and_wait(scatter, Box::new(())).unwrap();
            (whole, own)
        });
        for (rank, (whole, own)) in results.into_iter().enumerate() {
            let expected: Vec<i32> =
                (0..3).flat_map(|rank| std::iter::repeat_n(rank as i32, counts[rank])).collect();
            prop_assert_eq!(whole, expected);
            prop_assert_eq!(own, vec![3 * rank as i32; counts[rank]]);
        }
    }
}
