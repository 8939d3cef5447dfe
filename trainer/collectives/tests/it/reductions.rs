//! Results against oracles: exact for integers, bit for bit in rank order for floats.

use muster_collectives::{Communicator, Element, Reduction, bf16, f16};

use crate::support::on_threads;

const WORLDS: [usize; 6] = [1, 2, 3, 4, 5, 8];
const COUNTS: [usize; 13] = [0, 1, 2, 3, 17, 63, 64, 65, 1000, 4097, 65_537, 131_073, 300_007];
const REDUCTIONS: [Reduction; 4] =
    [Reduction::Sum, Reduction::Average, Reduction::Minimum, Reduction::Maximum];

/// A value that depends on rank and position, negative for some.
fn integer(rank: usize, index: usize) -> i64 {
    (index as i64 % 1013 - 500) * (rank as i64 + 1) + rank as i64
}

fn real(rank: usize, index: usize) -> f64 {
    ((index * 31 + rank * 17 + 1) as f64).sin() * 10_f64.powi((index % 7) as i32 - 3)
}

trait Sample: Element + PartialEq + std::fmt::Debug {
    fn sample(rank: usize, index: usize) -> Self;
    fn oracle(reduction: Reduction, values: &[Self]) -> Self;
    fn bits(self) -> u64;
}

macro_rules! integer_sample {
    ($($type:ty),*) => {$(
        impl Sample for $type {
            fn sample(rank: usize, index: usize) -> Self {
                integer(rank, index) as Self
            }
            fn oracle(reduction: Reduction, values: &[Self]) -> Self {
                match reduction {
                    Reduction::Sum => values.iter().sum(),
                    Reduction::Average => values.iter().sum::<Self>() / values.len() as Self,
                    Reduction::Minimum => *values.iter().min().unwrap(),
                    Reduction::Maximum => *values.iter().max().unwrap(),
                }
            }
            fn bits(self) -> u64 {
                self as u64
            }
        }
    )*};
}

macro_rules! float_sample {
    ($type:ty, $wide:ty, $from:expr, $to:expr) => {
        impl Sample for $type {
            fn sample(rank: usize, index: usize) -> Self {
                $to(real(rank, index) as $wide)
            }
            fn oracle(reduction: Reduction, values: &[Self]) -> Self {
                let values: Vec<$wide> = values.iter().map(|value| $from(*value)).collect();
                let folded = |combine: fn($wide, $wide) -> $wide| {
                    values[1..].iter().fold(values[0], |left, right| combine(left, *right))
                };
                $to(match reduction {
                    Reduction::Sum => folded(|a, b| a + b),
                    Reduction::Average => folded(|a, b| a + b) / values.len() as $wide,
                    Reduction::Minimum => folded(<$wide>::min),
                    Reduction::Maximum => folded(<$wide>::max),
                })
            }
            fn bits(self) -> u64 {
                u64::from(self.to_bits())
            }
        }
    };
}

integer_sample!(i32, i64);
float_sample!(f32, f32, |value| value, |value| value);
float_sample!(f64, f64, |value| value, |value| value);
float_sample!(f16, f32, f16::to_f32, f16::from_f32);
float_sample!(bf16, f32, bf16::to_f32, bf16::from_f32);

fn input<T: Sample>(rank: usize, count: usize) -> Vec<T> {
    (0..count).map(|index| T::sample(rank, index)).collect()
}

fn expected<T: Sample>(reduction: Reduction, world_size: usize, index: usize) -> u64 {
    let values: Vec<T> = (0..world_size).map(|rank| T::sample(rank, index)).collect();
    T::oracle(reduction, &values).bits()
}

fn check_all_reduce<T: Sample>(group: &mut Communicator) {
    for count in COUNTS {
        for reduction in REDUCTIONS {
            let own = input::<T>(group.rank(), count);
            let mut registered = group.allocate::<T>(count).unwrap();
            registered.copy_from_slice(&own);
            group.all_reduce(&mut registered, reduction).unwrap();
            let mut staged = own;
            group.all_reduce_staged(&mut staged, reduction).unwrap();
            // Every rank checks its own share of the elements, and all ranks must hold the same bits.
            let own_share = (0..count).skip(group.rank()).step_by(group.world_size());
            for index in own_share {
                let expected = expected::<T>(reduction, group.world_size(), index);
                assert_eq!(registered[index].bits(), expected, "registered {reduction:?} {count} [{index}]");
                assert_eq!(staged[index].bits(), expected, "staged {reduction:?} {count} [{index}]");
            }
            assert!(registered.iter().zip(&staged).all(|(a, b)| a.bits() == b.bits()));
            let checksum = staged
                .iter()
                .fold(0_i64, |sum, value| sum.wrapping_mul(31).wrapping_add(value.bits().cast_signed()));
            let mut bounds = [checksum, !checksum];
            group.all_reduce_staged(&mut bounds, Reduction::Minimum).unwrap();
            assert_eq!(bounds[0], !bounds[1], "all ranks hold the same bits");
        }
    }
}

fn all_reduce_everywhere<T: Sample>() {
    for world_size in WORLDS {
        on_threads(world_size, |_| (), |mut group| check_all_reduce::<T>(&mut group));
    }
}

#[test]
fn all_reduce_f32() {
    all_reduce_everywhere::<f32>();
}

#[test]
fn all_reduce_f64() {
    all_reduce_everywhere::<f64>();
}

#[test]
fn all_reduce_i32() {
    all_reduce_everywhere::<i32>();
}

#[test]
fn all_reduce_i64() {
    all_reduce_everywhere::<i64>();
}

#[test]
fn all_reduce_f16() {
    all_reduce_everywhere::<f16>();
}

#[test]
fn all_reduce_bf16() {
    all_reduce_everywhere::<bf16>();
}

#[test]
fn broadcast_gather_and_scatter_move_the_right_parts() {
    for world_size in WORLDS {
        on_threads(
            world_size,
            |_| (),
            |mut group| {
                for count in COUNTS {
                    let rank = group.rank();
                    for root in [0, world_size - 1] {
                        let mut data = input::<f32>(rank, count);
                        group.broadcast(&mut data, root).unwrap();
                        assert_eq!(data, input::<f32>(root, count));
                    }
                    let mut gathered = vec![0_i32; count * world_size];
                    group.all_gather(&input::<i32>(rank, count), &mut gathered).unwrap();
                    let all: Vec<i32> = (0..world_size).flat_map(|peer| input::<i32>(peer, count)).collect();
                    assert_eq!(gathered, all);

                    let mut part = vec![0_i64; count];
                    group
                        .reduce_scatter(&input::<i64>(rank, count * world_size), &mut part, Reduction::Sum)
                        .unwrap();
                    for (index, value) in part.iter().enumerate() {
                        assert_eq!(
                            value.bits(),
                            expected::<i64>(Reduction::Sum, world_size, rank * count + index)
                        );
                    }
                }
                group.barrier().unwrap();
            },
        );
    }
}

#[test]
fn two_communicators_interleave() {
    let directory = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for rank in 0..3 {
            let directory = directory.path();
            scope.spawn(move || {
                let connect = |group: &str| {
                    let mut options = crate::support::options(directory, rank, 3);
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

#[test]
fn sums_of_special_values_follow_ieee() {
    on_threads(
        2,
        |_| (),
        |mut group| {
            let mut data = if group.rank() == 0 {
                [f32::NAN, f32::INFINITY, -0.0, f32::MIN_POSITIVE / 4.0, f32::INFINITY]
            } else {
                [1.0, 1.0, -0.0, f32::MIN_POSITIVE / 4.0, f32::NEG_INFINITY]
            };
            group.all_reduce_staged(&mut data, Reduction::Sum).unwrap();
            assert!(data[0].is_nan() && data[4].is_nan());
            assert_eq!(data[1], f32::INFINITY);
            assert_eq!(data[2].to_bits(), (-0.0_f32).to_bits());
            assert_eq!(data[3], f32::MIN_POSITIVE / 2.0);
        },
    );
}
