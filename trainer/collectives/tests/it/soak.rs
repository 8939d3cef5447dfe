//! Random calls on random lengths, the same on every rank, checked one by one.
//!
//! `MUSTER_SOAK_OPERATIONS` says how many; by default a few ten thousand.

use muster_collectives::{Communicator, Reduction, bf16, f16};

use crate::samples::{Sample, expected, reductions};
use crate::support::{on_hosts, on_threads};

/// A small generator that all ranks seed alike (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Mostly short, now and then long enough for every algorithm.
    fn count(&mut self) -> usize {
        match self.below(200) {
            0 => self.below(200_000),
            1..=10 => self.below(20_000),
            _ => self.below(300),
        }
    }
}

fn value(rank: usize, index: usize, salt: i64) -> i64 {
    (rank as i64 + 1) * (index as i64 % 97 + salt)
}

/// Reduces numbers in any way that their type allows, where they lie or staged, and looks at some hundred results, bit
/// for bit.
fn reduction_of<T: Sample>(group: &mut Communicator, layout: &[usize], random: &mut Random) {
    let (count, first) = (random.count(), random.below(10_000));
    let all: Vec<Reduction> = reductions::<T>().collect();
    let reduction = all[random.below(all.len())];
    let own: Vec<T> = (first..first + count).map(|index| T::sample(group.rank(), index)).collect();
    let results = if random.below(2) == 0 {
        let mut buffer = group.allocate::<T>(count).unwrap();
        buffer.copy_from_slice(&own);
        group.all_reduce(&mut buffer, reduction).unwrap();
        buffer.to_vec()
    } else {
        let mut data = own;
        group.all_reduce_staged(&mut data, reduction).unwrap();
        data
    };
    for (index, result) in results.iter().enumerate().step_by(1 + count / 256) {
        let expected = expected::<T>(reduction, layout, first + index);
        assert_eq!(result.bits(), expected, "{} {reduction:?} {count} [{index}]", T::DATA_TYPE.name());
    }
}

fn operation(group: &mut Communicator, layout: &[usize], random: &mut Random) {
    let (rank, world_size) = (group.rank(), group.world_size());
    match random.below(20) {
        0 => return reduction_of::<f32>(group, layout, random),
        1 => return reduction_of::<f16>(group, layout, random),
        2 => return reduction_of::<bf16>(group, layout, random),
        3 => return reduction_of::<u8>(group, layout, random),
        _ => {}
    }
    let (kind, count, root) = (random.below(9), random.count(), random.below(world_size));
    let salt = random.below(1000) as i64;
    let own: Vec<i64> = (0..count).map(|index| value(rank, index, salt)).collect();
    let ranks = (world_size * (world_size + 1) / 2) as i64;
    let is_sum = |data: &[i64], start: usize| {
        data.iter().enumerate().all(|(index, sum)| *sum == ranks * value(0, start + index, salt))
    };
    match kind {
        0 => group.barrier().unwrap(),
        1 => {
            let mut buffer = group.allocate::<i64>(count).unwrap();
            buffer.copy_from_slice(&own);
            group.all_reduce(&mut buffer, Reduction::Sum).unwrap();
            assert!(is_sum(&buffer, 0));
        }
        2 => {
            let mut data = own;
            group.all_reduce_staged(&mut data, Reduction::Sum).unwrap();
            assert!(is_sum(&data, 0));
        }
        3 => {
            let mut data = own;
            group.reduce(&mut data, Reduction::Sum, root).unwrap();
            assert!(rank != root || is_sum(&data, 0));
        }
        4 => {
            let mut data = own;
            group.broadcast(&mut data, root).unwrap();
            assert!((0..count).all(|index| data[index] == value(root, index, salt)));
        }
        5 => {
            let mut all = vec![0; count * world_size];
            group.all_gather(&own, &mut all).unwrap();
            let at = |place: usize| value(place / count, place % count, salt);
            assert!((0..all.len()).all(|place| all[place] == at(place)));
        }
        6 => {
            let part = count / world_size;
            let mut received = vec![0; part];
            group.reduce_scatter(&own[..part * world_size], &mut received, Reduction::Sum).unwrap();
            assert!(is_sum(&received, rank * part));
        }
        7 => {
            let part = count / world_size;
            let mut received = vec![0; part * world_size];
            group.all_to_all(&own[..part * world_size], &mut received).unwrap();
            let at = |place: usize| value(place / part, rank * part + place % part, salt);
            assert!((0..received.len()).all(|place| received[place] == at(place)));
        }
        _ => {
            let (from, to) = (root, (root + 1) % world_size);
            if rank == from {
                group.send(&own, to).unwrap();
            } else if rank == to {
                let mut data = vec![0; count];
                group.receive(&mut data, from).unwrap();
                assert!((0..count).all(|index| data[index] == value(from, index, salt)));
            }
        }
    }
}

#[test]
fn random_operations() {
    let operations = std::env::var("MUSTER_SOAK_OPERATIONS")
        .map_or(20_000, |count| count.parse::<usize>().expect("MUSTER_SOAK_OPERATIONS is a number"));
    for (world_size, share) in [(2, operations / 2), (3, operations / 4), (4, operations / 4)] {
        on_threads(
            world_size,
            |_| (),
            |mut group| {
                let (layout, mut random) = (vec![0; world_size], Random(world_size as u64));
                (0..share).for_each(|_| operation(&mut group, &layout, &mut random));
            },
        );
    }
}

#[test]
fn random_operations_between_hosts() {
    let operations = std::env::var("MUSTER_SOAK_OPERATIONS")
        .map_or(3000, |count| count.parse::<usize>().expect("MUSTER_SOAK_OPERATIONS is a number"));
    for layout in [&[0, 1][..], &[0, 0, 1], &[0, 1, 2], &[0, 0, 1, 1]] {
        on_hosts(
            layout,
            |_| (),
            |mut group| {
                let mut random = Random(layout.len() as u64);
                (0..operations / 4).for_each(|_| operation(&mut group, layout, &mut random));
            },
        );
    }
}
