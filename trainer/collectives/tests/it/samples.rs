//! Values to reduce, and what must come of them: a sequential oracle in rank order inside a host, then in the order of
//! the hosts.

use muster_collectives::{Element, Reduction, bf16, f16};

pub(crate) const WORLDS: [usize; 8] = [1, 2, 3, 4, 5, 7, 8, 16];

/// The host of each rank, for groups on several: as many ranks on each, fewer here or there, in order and mixed.
pub(crate) const LAYOUTS: [&[usize]; 7] =
    [&[0, 1], &[0, 0, 1], &[0, 1, 0], &[0, 1, 2], &[0, 0, 1, 1], &[0, 1, 2, 1, 0], &[0, 1, 1, 2, 2, 2]];

/// Lengths around the vectors of every instruction set, the pages, and the shares of `world_size` ranks.
pub(crate) fn odd_counts(world_size: usize) -> Vec<usize> {
    let mut counts = vec![0, 1, 2, 3, 15, 16, 17, 63, 64, 65, 1000, 4095, 4096, 4097];
    counts.extend([world_size - 1, world_size + 1, 64 * world_size, 64 * world_size + 1]);
    counts.sort_unstable();
    counts.dedup();
    counts
}

/// Lengths around the limits of the algorithms, in elements of `T`: flat, symmetric, pipelined.
pub(crate) fn limits<T>() -> Vec<usize> {
    let bytes = [256, 4 << 10, 64 << 10, 256 << 10, 768 << 10];
    bytes.iter().flat_map(|bytes| [bytes / size_of::<T>() - 1, bytes / size_of::<T>() + 1]).collect()
}

pub(crate) trait Sample: Element + PartialEq + std::fmt::Debug {
    fn sample(rank: usize, index: usize) -> Self;
    /// Reduces the values of each host, and then what comes of that.
    fn oracle(reduction: Reduction, hosts: &[Vec<Self>]) -> Self;
    fn bits(self) -> u64;
}

macro_rules! integer_sample {
    ($($type:ty),*) => {$(
        impl Sample for $type {
            fn sample(rank: usize, index: usize) -> Self {
                ((index as i64 % 1013 - 500) * (rank as i64 + 1) + rank as i64) as Self
            }

            fn oracle(reduction: Reduction, hosts: &[Vec<Self>]) -> Self {
                let wide = hosts.iter().flatten().map(|value| i128::from(*value));
                let folded = |combine: fn(i128, i128) -> i128| wide.clone().reduce(combine).unwrap();
                (match reduction {
                    Reduction::Sum => folded(|a, b| a + b),
                    Reduction::Average => folded(|a, b| a + b) / wide.clone().count() as i128,
                    Reduction::Minimum => folded(i128::min),
                    Reduction::Maximum => folded(i128::max),
                    Reduction::Product => folded(i128::wrapping_mul),
                    Reduction::BitAnd => folded(|a, b| a & b),
                    Reduction::BitOr => folded(|a, b| a | b),
                    Reduction::BitXor => folded(|a, b| a ^ b),
                }) as Self
            }

            fn bits(self) -> u64 {
                i64::from(self).cast_unsigned()
            }
        }
    )*};
}

macro_rules! float_sample {
    ($type:ty, $wide:ty, $from:expr, $to:expr) => {
        impl Sample for $type {
            fn sample(rank: usize, index: usize) -> Self {
                // Cheap, and with bits in every place of the mantissa: rounding shows a wrong order.
                let noise = (index * 31 + rank * 17 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                let value = noise as $wide / (1 << 24) as $wide - 0.5;
                $to(value * [0.001, 1.0, 30.0][index % 3])
            }

            fn oracle(reduction: Reduction, hosts: &[Vec<Self>]) -> Self {
                let folded = |combine: fn($wide, $wide) -> $wide| {
                    let of_host = |values: &Vec<Self>| {
                        values.iter().map(|value| $from(*value)).reduce(combine).unwrap()
                    };
                    hosts.iter().map(of_host).reduce(combine).unwrap()
                };
                let ranks = hosts.iter().map(Vec::len).sum::<usize>();
                $to(match reduction {
                    Reduction::Sum => folded(|a, b| a + b),
                    Reduction::Average => folded(|a, b| a + b) / ranks as $wide,
                    Reduction::Minimum => folded(<$wide>::min),
                    Reduction::Maximum => folded(<$wide>::max),
                    Reduction::Product => folded(|a, b| a * b),
                    other => panic!("{other:?} is not for floats"),
                })
            }

            fn bits(self) -> u64 {
                u64::from(self.to_bits())
            }
        }
    };
}

integer_sample!(i8, u8, i32, i64);
float_sample!(f32, f32, |value| value, |value| value);
float_sample!(f64, f64, |value| value, |value| value);
float_sample!(f16, f32, f16::to_f32, f16::from_f32);
float_sample!(bf16, f32, bf16::to_f32, bf16::from_f32);

/// What a rank passes in.
pub(crate) fn input<T: Sample>(rank: usize, count: usize) -> Vec<T> {
    (0..count).map(|index| T::sample(rank, index)).collect()
}

/// The bits of element `index` of the reduction of all ranks' input, where `layout` says on which host each rank is.
pub(crate) fn expected<T: Sample>(reduction: Reduction, layout: &[usize], index: usize) -> u64 {
    let host = |host: usize| -> Vec<T> {
        let ranks = layout.iter().enumerate().filter(|(_, of_rank)| **of_rank == host);
        ranks.map(|(rank, _)| T::sample(rank, index)).collect()
    };
    let hosts: Vec<Vec<T>> = (0..=layout.iter().copied().max().unwrap()).map(host).collect();
    T::oracle(reduction, &hosts).bits()
}

/// The reductions that apply to `T`.
pub(crate) fn reductions<T: Element>() -> impl Iterator<Item = Reduction> {
    [
        Reduction::Sum,
        Reduction::Average,
        Reduction::Minimum,
        Reduction::Maximum,
        Reduction::Product,
        Reduction::BitAnd,
        Reduction::BitOr,
        Reduction::BitXor,
    ]
    .into_iter()
    .filter(|reduction| reduction.applies_to(T::DATA_TYPE))
}
