//! Values to reduce, and what must come of them: a sequential oracle in rank order.

use muster_collectives::{Element, Reduction, bf16, f16};

pub(crate) const WORLDS: [usize; 8] = [1, 2, 3, 4, 5, 7, 8, 16];

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
    fn oracle(reduction: Reduction, values: &[Self]) -> Self;
    fn bits(self) -> u64;
}

macro_rules! integer_sample {
    ($($type:ty),*) => {$(
        impl Sample for $type {
            fn sample(rank: usize, index: usize) -> Self {
                ((index as i64 % 1013 - 500) * (rank as i64 + 1) + rank as i64) as Self
            }

            fn oracle(reduction: Reduction, values: &[Self]) -> Self {
                let wide = values.iter().map(|value| i128::from(*value));
                let folded = |combine: fn(i128, i128) -> i128| wide.clone().reduce(combine).unwrap();
                (match reduction {
                    Reduction::Sum => folded(|a, b| a + b),
                    Reduction::Average => folded(|a, b| a + b) / values.len() as i128,
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

/// The bits of element `index` of the reduction of all ranks' input.
pub(crate) fn expected<T: Sample>(reduction: Reduction, world_size: usize, index: usize) -> u64 {
    let mut values = [T::default(); 16];
    for (rank, value) in values[..world_size].iter_mut().enumerate() {
        *value = T::sample(rank, index);
    }
    T::oracle(reduction, &values[..world_size]).bits()
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
