//! How half-precision numbers are converted, by the instructions that a kernel is compiled for.

use half::{bf16, f16};

use crate::half_precision::{narrow_bf16, narrow_f16, widen_bf16, widen_f16};

/// How many numbers are converted together.
pub(crate) const TOGETHER: usize = 16;

/// A set of instructions with conversions that compilers do not find by themselves. They give the bits of
/// [`half_precision`](crate::half_precision).
pub trait Instructions {
    /// Whether converting together is better than one by one.
    const CONVERTS: bool;

    /// # Safety
    /// The processor must have the instructions, as for all of these.
    unsafe fn widen_f16(halves: [f16; TOGETHER]) -> [f32; TOGETHER];

    /// # Safety
    /// See above.
    unsafe fn narrow_f16(singles: [f32; TOGETHER]) -> [f16; TOGETHER];

    /// # Safety
    /// See above.
    unsafe fn widen_bf16(halves: [bf16; TOGETHER]) -> [f32; TOGETHER];

    /// # Safety
    /// See above.
    unsafe fn narrow_bf16(singles: [f32; TOGETHER]) -> [bf16; TOGETHER];
}

/// What every processor of the architecture has, such as SSE2 or NEON.
#[derive(Debug)]
pub(super) struct Baseline;

impl Instructions for Baseline {
    const CONVERTS: bool = false;

    #[inline(always)]
    unsafe fn widen_f16(halves: [f16; TOGETHER]) -> [f32; TOGETHER] {
        halves.map(widen_f16)
    }

    #[inline(always)]
    unsafe fn narrow_f16(singles: [f32; TOGETHER]) -> [f16; TOGETHER] {
        singles.map(narrow_f16)
    }

    #[inline(always)]
    unsafe fn widen_bf16(halves: [bf16; TOGETHER]) -> [f32; TOGETHER] {
        halves.map(widen_bf16)
    }

    #[inline(always)]
    unsafe fn narrow_bf16(singles: [f32; TOGETHER]) -> [bf16; TOGETHER] {
        singles.map(narrow_bf16)
    }
}
