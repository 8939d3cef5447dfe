//! Every call, with every type of elements and every reduction, against the same worked out one rank after the other.

use std::fmt::Debug;
use std::sync::Arc;

use half::{bf16, f16};
use muster_collectives::{Element, Reduction};
use muster_nccl::{Communicator, Error};

use crate::fake::with_ranks;
use crate::host_queue::{Gate, HostQueue, foreign_buffer};

/// Small whole numbers are exact in every type.
trait Sample: Element + PartialEq + Debug {
    fn of(number: i64) -> Self;
    fn number(self) -> i64;
}

macro_rules! samples {
    ($($type:ty: $of:expr, $number:expr;)*) => {$(
        impl Sample for $type {
            fn of(number: i64) -> Self {
                $of(number)
            }
            fn number(self) -> i64 {
                $number(self)
            }
        }
    )*};
}

samples! {
    f32: |number| number as f32, |value| value as i64;
    f64: |number| number as f64, |value| value as i64;
    f16: |number| f16::from_f64(number as f64), |value: f16| value.to_f64() as i64;
    bf16: |number| bf16::from_f64(number as f64), |value: bf16| value.to_f64() as i64;
    i32: |number| number as i32, i64::from;
    i64: |number| number, |value| value;
    i8: |number| number as i8, i64::from;
    u8: |number| number as u8, i64::from;
}

const REDUCTIONS: [Reduction; 5] =
    [Reduction::Sum, Reduction::Average, Reduction::Minimum, Reduction::Maximum, Reduction::Product];

/// What a rank gives; multiples of 12 have whole averages over up to four ranks, and their sums fit into eight bits.
fn given(reduction: Reduction, rank: usize, index: usize) -> i64 {
    match reduction {
        Reduction::Product => 1 + ((rank + index) % 2) as i64,
        _ => 12 * ((rank * 2 + index) % 3) as i64,
    }
}

fn reduced(reduction: Reduction, ranks: usize, index: usize) -> i64 {
    let values = (0..ranks).map(|rank| given(reduction, rank, index));
    match reduction {
        Reduction::Sum => values.sum(),
        Reduction::Average => values.sum::<i64>() / ranks as i64,
        Reduction::Minimum => values.min().unwrap(),
        Reduction::Maximum => values.max().unwrap(),
        _ => values.product(),
    }
}

fn samples<T: Sample>(count: usize, value: impl Fn(usize) -> i64) -> Vec<T> {
    (0..count).map(|index| T::of(value(index))).collect()
}

fn check_reductions<T: Sample>(group: &mut Communicator<HostQueue>, count: usize) {
    let (rank, ranks) = (group.rank(), group.world_size());
    for reduction in REDUCTIONS {
        let own = |count| samples::<T>(count, |index| given(reduction, rank, index));
        let expected = |count| samples::<T>(count, |index| reduced(reduction, ranks, index));

        let mut buffer = group.upload(&own(count)).unwrap();
        group.all_reduce(&mut buffer, reduction).unwrap().wait().unwrap();
        assert_eq!(group.download(&buffer).unwrap(), expected(count), "all_reduce {reduction:?}");

        let root = count % ranks;
        let mut buffer = group.upload(&own(count)).unwrap();
        group.reduce(&mut buffer, reduction, root).unwrap().wait().unwrap();
        let kept = if rank == root { expected(count) } else { own(count) };
        assert_eq!(group.download(&buffer).unwrap(), kept, "reduce {reduction:?}");

        let send = group.upload(&own(count * ranks)).unwrap();
        let mut receive = group.allocate::<T>(count).unwrap();
        group.reduce_scatter(&send, &mut receive, reduction).unwrap().wait().unwrap();
        let part = &expected(count * ranks)[rank * count..][..count];
        assert_eq!(group.download(&receive).unwrap(), part, "reduce_scatter {reduction:?}");
    }
}

/// A value that tells whose it is, for whom, and where it stood.
fn marked(from: usize, to: usize, index: usize) -> i64 {
    (from * 25 + to * 5 + index % 5) as i64
}

fn check_movements<T: Sample>(group: &mut Communicator<HostQueue>, count: usize) {
    let (rank, ranks) = (group.rank(), group.world_size());
    let root = count % ranks;
    let part = |from, to| samples::<T>(count, move |index| marked(from, to, index));
    let parts = |pairs: Vec<(usize, usize)>| -> Vec<T> {
        pairs.into_iter().flat_map(|(from, to)| part(from, to)).collect()
    };
    let nothing = || group_empty::<T>(group);

    let mut nothing_here = nothing();
    let mut buffer = group.upload(&part(rank, 0)).unwrap();
    group.broadcast(&mut buffer, root).unwrap().wait().unwrap();
    assert_eq!(group.download(&buffer).unwrap(), part(root, 0), "broadcast");

    let send = group.upload(&part(rank, 0)).unwrap();
    let mut receive = group.allocate::<T>(count * ranks).unwrap();
    group.all_gather(&send, &mut receive).unwrap().wait().unwrap();
    let all = parts((0..ranks).map(|from| (from, 0)).collect());
    assert_eq!(group.download(&receive).unwrap(), all, "all_gather");

    let mut receive = group.allocate::<T>(if rank == root { count * ranks } else { 0 }).unwrap();
    group.gather(&send, &mut receive, root).unwrap().wait().unwrap();
    assert_eq!(group.download(&receive).unwrap(), if rank == root { all } else { Vec::new() }, "gather");

    let for_each = parts((0..ranks).map(|to| (rank, to)).collect());
    let send = group.upload(&for_each).unwrap();
    let mut receive = group.allocate::<T>(count).unwrap();
    let scattered = if rank == root { &send } else { &nothing_here };
    group.scatter(scattered, &mut receive, root).unwrap().wait().unwrap();
    assert_eq!(group.download(&receive).unwrap(), part(root, rank), "scatter");

    let mut receive = group.allocate::<T>(count * ranks).unwrap();
    group.all_to_all(&send, &mut receive).unwrap().wait().unwrap();
    let of_each = parts((0..ranks).map(|from| (from, rank)).collect());
    assert_eq!(group.download(&receive).unwrap(), of_each, "all_to_all");

    // Around a ring; the first rank begins.
    if ranks > 1 {
        let (next, previous) = ((rank + 1) % ranks, (rank + ranks - 1) % ranks);
        let own = group.upload(&part(rank, next)).unwrap();
        let mut received = group.allocate::<T>(count).unwrap();
        if rank == 0 {
            group.send(&own, next).unwrap().wait().unwrap();
        }
        group.receive(&mut received, previous).unwrap().wait().unwrap();
        if rank > 0 {
            group.send(&own, next).unwrap().wait().unwrap();
        }
        assert_eq!(group.download(&received).unwrap(), part(previous, rank), "send and receive");
    }
    group.all_reduce(&mut nothing_here, Reduction::Sum).unwrap().wait().unwrap();
}

fn group_empty<T: Sample>(group: &Communicator<HostQueue>) -> muster_nccl::DeviceBuffer<T, HostQueue> {
    group.allocate::<T>(0).unwrap()
}

fn check_type<T: Sample>() {
    assert_eq!(T::of(120).number(), 120);
    for ranks in 1..=4 {
        with_ranks(ranks, |mut group| {
            for count in [1, 5, 67] {
                check_reductions::<T>(&mut group, count);
                check_movements::<T>(&mut group, count);
            }
            group.close().unwrap();
        });
    }
}

#[test]
fn floats_are_reduced_and_moved() {
    check_type::<f32>();
    check_type::<f64>();
    check_type::<f16>();
    check_type::<bf16>();
}

#[test]
fn integers_are_reduced_and_moved() {
    check_type::<i32>();
    check_type::<i64>();
    check_type::<i8>();
    check_type::<u8>();
}

#[test]
fn calls_run_one_after_the_other_while_nobody_waits() {
    let sums = with_ranks(3, |mut group| {
        let mut buffer = group.upload(&[group.rank() as f64 + 1.0; 9]).unwrap();
        // 1 + 2 + 3 on all, then three times as much, again and again; memory lives although its buffer does not.
        let mut pending = Vec::new();
        for _ in 0..5 {
            pending.push(group.all_reduce(&mut buffer, Reduction::Sum).unwrap());
        }
        let sum = group.download(&buffer).unwrap();
        drop(buffer);
        assert!(pending.iter().all(muster_nccl::Pending::is_complete));
        for call in pending {
            call.wait().unwrap();
        }
        sum
    });
    assert_eq!(sums, vec![vec![6.0 * 81.0; 9]; 3]);
}

#[test]
fn memory_is_kept_until_its_call_has_ended_although_the_buffer_is_gone() {
    with_ranks(2, |mut group| {
        let (gate, owner) = (Gate::closed(), Arc::new(()));
        let mut buffer = foreign_buffer(group.queue(), 1, Arc::clone(&owner));
        group.queue().hold(&gate);
        let pending = group.all_reduce(&mut buffer, Reduction::Sum).unwrap();
        drop(buffer);
        assert!(!pending.is_complete());
        assert_eq!(Arc::strong_count(&owner), 2);
        gate.open();
        pending.wait().unwrap();
        assert_eq!(Arc::strong_count(&owner), 1);
    });
}

#[test]
fn a_call_waits_for_the_stream_of_its_buffer_and_that_one_for_the_call() {
    with_ranks(2, |mut group| {
        let (compute, gate) = (HostQueue::new(), Gate::closed());
        let mut buffer = foreign_buffer(&compute, group.rank() as i64 + 1, Arc::new(()));
        compute.hold(&gate);
        let pending = group.all_reduce(&mut buffer, Reduction::Sum).unwrap();
        assert!(!pending.is_complete(), "the other stream has not come so far");
        gate.open();
        // Reads in the order of the other stream, without waiting for the call itself.
        assert_eq!(group.download(&buffer).unwrap(), [3; 4]);
        pending.wait().unwrap();
    });
}

#[test]
fn arguments_that_do_not_fit_are_refused_and_end_nothing() {
    with_ranks(2, |mut group| {
        let mut buffer = group.upload(&[1_i32; 6]).unwrap();
        let mut small = group.allocate::<i32>(2).unwrap();
        let message = |result: Result<_, Error>| match result {
            Err(Error::InvalidArgument(message)) => message,
            other => panic!("{other:?}"),
        };
        let refused = message(group.all_reduce(&mut buffer, Reduction::BitXor));
        assert_eq!(refused, "NCCL cannot reduce by bxor: sum, avg, min, max and prod it can");
        let refused = message(group.broadcast(&mut buffer, 2));
        assert_eq!(refused, "cannot broadcast from rank 2: the group has 2 ranks");
        let refused = message(group.reduce_scatter(&buffer, &mut small, Reduction::Sum));
        assert_eq!(refused, "reduce_scatter: 6 elements are not 2 parts of 2, one a rank");
        let own = group.rank();
        assert_eq!(
            message(group.send(&buffer, own)),
            format!("cannot send to rank {own}: that is this rank")
        );
        let elsewhere = HostQueue::on(1);
        // SAFETY: nobody uses the memory, since the buffer is refused.
        let mut foreign =
            unsafe { muster_nccl::DeviceBuffer::<i32, _>::from_raw(&elsewhere, 64, 2, ()) }.unwrap();
        let refused = message(group.all_reduce(&mut foreign, Reduction::Sum));
        assert!(
            refused.ends_with("a buffer lies on device 1, and the communicator works on device 0"),
            "{refused}"
        );
        // SAFETY: as above.
        let crooked = unsafe { muster_nccl::DeviceBuffer::<i32, _>::from_raw(&elsewhere, 66, 2, ()) };
        assert!(matches!(crooked, Err(Error::InvalidArgument(_))));
        assert!(matches!(group.write(&[1_i32], &mut buffer), Err(Error::InvalidArgument(_))));
        group.all_reduce(&mut buffer, Reduction::Sum).unwrap().wait().unwrap();
        assert_eq!(group.download(&buffer).unwrap(), [2; 6]);
    });
}
