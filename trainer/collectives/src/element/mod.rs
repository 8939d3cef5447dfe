//! The element types a collective can carry and how they are reduced.

#![allow(unsafe_code)]
#![expect(
    clippy::inline_always,
    reason = "a conversion must be compiled inside the function that enables the processor's features"
)]

mod implementations;

use crate::kernels::Instructions;

/// The type of the elements in a buffer, as announced to the other ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary16, accumulated in `F32`.
    F16,
    /// bfloat16, accumulated in `F32`.
    BF16,
    /// Signed 32-bit integer; sums wrap.
    I32,
    /// Signed 64-bit integer; sums wrap.
    I64,
    /// Signed 8-bit integer, accumulated in 32 bits; results wrap.
    I8,
    /// Unsigned 8-bit integer, accumulated in 32 bits; results wrap.
    U8,
}

impl DataType {
    const ALL: [Self; 8] =
        [Self::F32, Self::F64, Self::F16, Self::BF16, Self::I32, Self::I64, Self::I8, Self::U8];

    /// Name as printed in errors and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::I8 => "i8",
            Self::U8 => "u8",
        }
    }

    /// Whether the values have a point, and no bit operations.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::F16 | Self::BF16)
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|data_type| data_type.code() == code)
    }

    pub(crate) fn code(self) -> u8 {
        self as u8 + 1
    }
}

/// How the contributions of the ranks become one value.
///
/// On one host the value is always `x0 ∘ x1 ∘ … ∘ x(N-1)` in rank order, whatever the size of the buffer, so results are
/// bit-identical on every rank and in every run. On several hosts it is `h0 ∘ h1 ∘ …`, where each `h` is the value of
/// one host's ranks in rank order, and the hosts stand in the order of their lowest ranks.
///
/// Of the smallest and the largest value: NaN wins over every number, the first NaN in rank order over later ones,
/// and of -0.0 and 0.0, which are equal, the one of the higher rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// Sum; integers wrap.
    Sum,
    /// Sum divided once by the number of ranks; integers truncate toward zero.
    Average,
    /// Smallest value; NaN if any contribution is NaN.
    Minimum,
    /// Largest value; NaN if any contribution is NaN.
    Maximum,
    /// Product; integers wrap.
    Product,
    /// Bits set in every contribution; integers only.
    BitAnd,
    /// Bits set in any contribution; integers only.
    BitOr,
    /// Bits set in an odd number of contributions; integers only.
    BitXor,
}

impl Reduction {
    const ALL: [Self; 8] = [
        Self::Sum,
        Self::Average,
        Self::Minimum,
        Self::Maximum,
        Self::Product,
        Self::BitAnd,
        Self::BitOr,
        Self::BitXor,
    ];

    /// Name as printed in errors and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Average => "avg",
            Self::Minimum => "min",
            Self::Maximum => "max",
            Self::Product => "prod",
            Self::BitAnd => "band",
            Self::BitOr => "bor",
            Self::BitXor => "bxor",
        }
    }

    /// Whether it can reduce elements of this type.
    pub fn applies_to(self, data_type: DataType) -> bool {
        !matches!(self, Self::BitAnd | Self::BitOr | Self::BitXor) || !data_type.is_float()
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reduction| reduction.code() == code)
    }

    pub(crate) fn code(self) -> u8 {
        self as u8 + 1
    }
}

/// A type whose values collectives can move and reduce. Sealed: peers must agree on its layout.
pub trait Element: bytemuck::Pod + Default + Send + Sync + private::Sealed {
    /// The type announced to the other ranks.
    const DATA_TYPE: DataType;
    #[doc(hidden)]
    type Accumulator: Arithmetic + Element<Accumulator = Self::Accumulator>;
    #[doc(hidden)]
    fn widen(self) -> Self::Accumulator;
    #[doc(hidden)]
    fn narrow(accumulator: Self::Accumulator) -> Self;

    /// Combines each accumulator with the value in its place.
    ///
    /// # Safety
    /// The processor must have the instructions.
    #[doc(hidden)]
    #[inline(always)]
    unsafe fn take_in<I: Instructions>(
        values: &[Self],
        accumulators: &mut [Self::Accumulator],
        combine: impl Fn(Self::Accumulator, Self::Accumulator) -> Self::Accumulator,
    ) {
        for (accumulator, value) in accumulators.iter_mut().zip(values) {
            *accumulator = combine(*accumulator, value.widen());
        }
    }

    /// Turns each accumulator into the value in its place.
    ///
    /// # Safety
    /// The processor must have the instructions.
    #[doc(hidden)]
    #[inline(always)]
    unsafe fn give_out<I: Instructions>(accumulators: &[Self::Accumulator], values: &mut [Self]) {
        for (value, accumulator) in values.iter_mut().zip(accumulators) {
            *value = Self::narrow(*accumulator);
        }
    }
}

/// What an accumulator can do. An implementation detail of [`Element`].
#[doc(hidden)]
pub trait Arithmetic: Copy + Default {
    fn add(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    fn smaller(self, other: Self) -> Self;
    fn larger(self, other: Self) -> Self;
    fn divided_by(self, count: usize) -> Self;
}

mod private {
    pub trait Sealed {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimum_and_maximum_carry_nan_from_either_side() {
        for (a, b) in [(f32::NAN, 1.0), (1.0, f32::NAN)] {
            assert!(a.smaller(b).is_nan());
            assert!(a.larger(b).is_nan());
        }
    }

    #[test]
    fn codes_round_trip_and_zero_is_no_type() {
        for data_type in DataType::ALL {
            assert_eq!(DataType::from_code(data_type.code()), Some(data_type));
        }
        for reduction in Reduction::ALL {
            assert_eq!(Reduction::from_code(reduction.code()), Some(reduction));
        }
        assert_eq!(DataType::from_code(0), None);
        assert_eq!(Reduction::from_code(0), None);
    }
}
