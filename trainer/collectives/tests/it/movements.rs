//! Collectives and messages that move data: every element arrives at its place.

use muster_collectives::Communicator;

use crate::certificates::Authority;
use crate::samples::{LAYOUTS, Sample, WORLDS, input};
use crate::support::{on_hosts, on_threads};

const COUNTS: [usize; 10] = [0, 1, 2, 17, 63, 65, 1000, 4097, 40_000, 131_073];

/// How many elements `from` has for `to`, different for most pairs and none for some.
fn part(from: usize, to: usize, count: usize) -> usize {
    count * ((from + 2 * to) % 4) / 3
}

fn check<T: Sample>(group: &mut Communicator, count: usize) {
    let (rank, world_size) = (group.rank(), group.world_size());
    let ranks = 0..world_size;
    let root = count % world_size;
    let everyone = |length: &dyn Fn(usize) -> usize| -> Vec<T> {
        ranks.clone().flat_map(|peer| input::<T>(peer, length(peer))).collect()
    };
    let own = input::<T>(rank, count);

    let mut data = own.clone();
    group.broadcast(&mut data, root).unwrap();
    assert_eq!(data, input::<T>(root, count));

    let mut gathered = vec![T::default(); count * world_size];
    group.all_gather(&own, &mut gathered).unwrap();
    assert_eq!(gathered, everyone(&|_| count));

    let mut registered = group.allocate::<T>(count * world_size).unwrap();
    registered[rank * count..(rank + 1) * count].copy_from_slice(&own);
    group.all_gather_registered(&mut registered).unwrap();
    assert_eq!(registered[..], gathered[..]);

    let mut gathered = vec![T::default(); if rank == root { count * world_size } else { 0 }];
    group.gather(&own, &mut gathered, root).unwrap();
    assert!(rank != root || gathered == everyone(&|_| count));

    let counts: Vec<usize> = ranks.clone().map(|peer| part(peer, 1, count)).collect();
    let sum = counts.iter().sum();
    let own_part = input::<T>(rank, counts[rank]);
    let mut gathered = vec![T::default(); sum];
    group.all_gather_v(&own_part, &mut gathered, &counts).unwrap();
    assert_eq!(gathered, everyone(&|peer| counts[peer]));
    let (mut gathered, known): (_, &[usize]) =
        if rank == root { (vec![T::default(); sum], &counts) } else { (vec![], &[]) };
    group.gather_v(&own_part, &mut gathered, known, root).unwrap();
    assert!(rank != root || gathered == everyone(&|peer| counts[peer]));

    let whole = input::<T>(root, count * world_size);
    let sent = if rank == root { whole.as_slice() } else { &[] };
    let mut received = vec![T::default(); count];
    group.scatter(sent, &mut received, root).unwrap();
    assert_eq!(received, whole[rank * count..(rank + 1) * count]);

    let whole = input::<T>(root, sum);
    let sent = if rank == root { whole.as_slice() } else { &[] };
    let mut received = vec![T::default(); counts[rank]];
    group.scatter_v(sent, known, &mut received, root).unwrap();
    let start: usize = counts[..rank].iter().sum();
    assert_eq!(received, whole[start..start + counts[rank]]);

    let mut received = vec![T::default(); count * world_size];
    group.all_to_all(&input::<T>(rank, count * world_size), &mut received).unwrap();
    let wanted: Vec<T> = ranks
        .clone()
        .flat_map(|peer| (0..count).map(move |index| T::sample(peer, rank * count + index)))
        .collect();
    assert_eq!(received, wanted);

    let send_counts: Vec<usize> = ranks.clone().map(|peer| part(rank, peer, count)).collect();
    let receive_counts: Vec<usize> = ranks.clone().map(|peer| part(peer, rank, count)).collect();
    let mut received = vec![T::default(); receive_counts.iter().sum()];
    let sent = input::<T>(rank, send_counts.iter().sum());
    group.all_to_all_v(&sent, &send_counts, &mut received, &receive_counts).unwrap();
    let wanted: Vec<T> = ranks
        .flat_map(|peer| {
            let start: usize = (0..rank).map(|to| part(peer, to, count)).sum();
            (0..part(peer, rank, count)).map(move |index| T::sample(peer, start + index))
        })
        .collect();
    assert_eq!(received, wanted);
}

fn check_all(mut group: Communicator) {
    for count in COUNTS {
        // The largest take long with many ranks, and say nothing new.
        if count * group.world_size() < 700_000 {
            check::<f32>(&mut group, count);
        }
        if count < 2000 {
            check::<u8>(&mut group, count);
            check::<i64>(&mut group, count);
        }
    }
    group.barrier().unwrap();
}

#[test]
fn every_collective_moves_the_right_parts() {
    for world_size in WORLDS {
        on_threads(world_size, |_| (), check_all);
    }
}

#[test]
fn every_collective_moves_the_right_parts_between_hosts() {
    for layout in LAYOUTS {
        on_hosts(layout, |_| (), check_all);
    }
    let authority = Authority::new();
    on_hosts(&[0, 0, 1, 1, 2], |options| authority.secure(options), check_all);
}

fn pass_around(mut group: Communicator) {
    let (rank, world_size) = (group.rank(), group.world_size());
    let (next, last) = ((rank + 1) % world_size, (rank + world_size - 1) % world_size);
    for count in [0, 1, 1000, 16_384, 16_385, 100_003, 3] {
        let mut received = vec![0_f32; count];
        // Longer than the channel holds: someone must receive first.
        if rank == 0 {
            group.receive(&mut received, last).unwrap();
            group.send(&input::<f32>(rank, count), next).unwrap();
        } else {
            group.send(&input::<f32>(rank, count), next).unwrap();
            group.receive(&mut received, last).unwrap();
        }
        assert_eq!(received, input::<f32>(last, count));
    }
    // Two short messages wait in the channel while the ranks do something else.
    group.send(&[rank as i32], next).unwrap();
    group.send(&[10 + rank as i32], next).unwrap();
    group.barrier().unwrap();
    let mut received = [0_i32; 2];
    let (first, second) = received.split_at_mut(1);
    group.receive(first, last).unwrap();
    group.receive(second, last).unwrap();
    assert_eq!(received, [last as i32, 10 + last as i32]);
}

#[test]
fn messages_arrive_in_order_around_a_ring() {
    on_threads(4, |_| (), pass_around);
}

#[test]
fn messages_arrive_in_order_around_a_ring_of_hosts() {
    on_hosts(&[0, 1, 2, 3], |_| (), pass_around);
    on_hosts(&[0, 0, 1, 1], |_| (), pass_around);
    let authority = Authority::new();
    on_hosts(&[0, 1, 2, 3], |options| authority.secure(options), pass_around);
}
