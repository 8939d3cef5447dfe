//! What each type of element is and how it is reduced.

#![allow(unsafe_code)]

use half::{bf16, f16};

use super::{Arithmetic, DataType, Element, private};
use crate::half_precision;
use crate::kernels::{Instructions, TOGETHER};

macro_rules! float_arithmetic {
    ($($type:ty),*) => {$(
        impl Arithmetic for $type {
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self + other
            }
            #[inline(always)]
            fn times(self, other: Self) -> Self {
                self * other
            }
            #[inline(always)]
            fn smaller(self, other: Self) -> Self {
                if self < other || self.is_nan() { self } else { other }
            }
            #[inline(always)]
            fn larger(self, other: Self) -> Self {
                if self > other || self.is_nan() { self } else { other }
            }
            #[inline(always)]
            fn divided_by(self, count: usize) -> Self {
                self / count as Self
            }
        }
    )*};
}

macro_rules! integer_arithmetic {
    ($($type:ty),*) => {$(
        impl Arithmetic for $type {
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn times(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn smaller(self, other: Self) -> Self {
                self.min(other)
            }
            #[inline(always)]
            fn larger(self, other: Self) -> Self {
                self.max(other)
            }
            #[inline(always)]
            fn divided_by(self, count: usize) -> Self {
                self.wrapping_div(count as Self)
            }
        }
    )*};
}

float_arithmetic!(f32, f64);
integer_arithmetic!(i32, i64);

macro_rules! element {
    ($type:ty, $data_type:ident, $accumulator:ty, $widen:expr, $narrow:expr) => {
        impl private::Sealed for $type {}
        impl Element for $type {
            const DATA_TYPE: DataType = DataType::$data_type;
            type Accumulator = $accumulator;
            #[inline(always)]
            fn widen(self) -> $accumulator {
                $widen(self)
            }
            #[inline(always)]
            fn narrow(accumulator: $accumulator) -> Self {
                $narrow(accumulator)
            }
        }
    };
}

element!(f32, F32, f32, |value| value, |value| value);
element!(f64, F64, f64, |value| value, |value| value);
element!(i32, I32, i32, |value| value, |value| value);
element!(i64, I64, i64, |value| value, |value| value);
element!(i8, I8, i32, i32::from, |sum| sum as i8);
element!(u8, U8, i32, i32::from, |sum| sum as u8);

macro_rules! half {
    ($type:ty, $data_type:ident, $widen:ident, $narrow:ident) => {
        impl private::Sealed for $type {}
        impl Element for $type {
            const DATA_TYPE: DataType = DataType::$data_type;
            type Accumulator = f32;

            #[inline(always)]
            fn widen(self) -> f32 {
                half_precision::$widen(self)
            }

            #[inline(always)]
            fn narrow(accumulator: f32) -> Self {
                half_precision::$narrow(accumulator)
            }

            #[inline(always)]
            unsafe fn take_in<I: Instructions>(
                values: &[Self],
                accumulators: &mut [f32],
                combine: impl Fn(f32, f32) -> f32,
            ) {
                let together = if I::CONVERTS { values.len() / TOGETHER * TOGETHER } else { 0 };
                let (values, last) = values.split_at(together);
                let (accumulators, last_accumulators) = accumulators.split_at_mut(together);
                let groups = accumulators.as_chunks_mut().0.iter_mut().zip(values.as_chunks().0);
                for (accumulators, group) in groups {
                    // SAFETY: the caller's promise.
                    let wide = unsafe { I::$widen(*group) };
                    let accumulators: &mut [f32; TOGETHER] = accumulators;
                    for (accumulator, value) in accumulators.iter_mut().zip(wide) {
                        *accumulator = combine(*accumulator, value);
                    }
                }
                for (accumulator, value) in last_accumulators.iter_mut().zip(last) {
                    *accumulator = combine(*accumulator, value.widen());
                }
            }

            #[inline(always)]
            unsafe fn give_out<I: Instructions>(accumulators: &[f32], values: &mut [Self]) {
                let together = if I::CONVERTS { values.len() / TOGETHER * TOGETHER } else { 0 };
                let (values, last) = values.split_at_mut(together);
                let (accumulators, last_accumulators) = accumulators.split_at(together);
                let groups = values.as_chunks_mut().0.iter_mut().zip(accumulators.as_chunks().0);
                for (group, accumulators) in groups {
                    // SAFETY: the caller's promise.
                    *group = unsafe { I::$narrow(*accumulators) };
                }
                for (value, accumulator) in last.iter_mut().zip(last_accumulators) {
                    *value = Self::narrow(*accumulator);
                }
            }
        }
    };
}

half!(f16, F16, widen_f16, narrow_f16);
half!(bf16, BF16, widen_bf16, narrow_bf16);
