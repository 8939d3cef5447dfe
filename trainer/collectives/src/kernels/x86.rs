//! Kernels for instructions that not every x86 processor has, and how these convert half-precision numbers.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, __m512, __m512i, _CMP_UNORD_Q, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT,
    _mm256_add_epi32, _mm256_and_si256, _mm256_blendv_epi8, _mm256_castps_si256, _mm256_cmp_ps,
    _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_cvtps_ph, _mm256_or_si256, _mm256_packus_epi32,
    _mm256_permute4x64_epi64, _mm256_set1_epi32, _mm256_slli_epi32, _mm256_srli_epi32, _mm512_add_epi32,
    _mm512_and_si512, _mm512_castps_si512, _mm512_cmp_ps_mask, _mm512_cvtepi32_epi16, _mm512_cvtepu16_epi32,
    _mm512_cvtneps_pbh, _mm512_cvtph_ps, _mm512_cvtps_ph, _mm512_fpclass_ps_mask, _mm512_mask_or_epi32,
    _mm512_set1_epi32, _mm512_slli_epi32, _mm512_srli_epi32,
};
use std::mem::transmute;

use half::{bf16, f16};

use super::body::body;
use super::instructions::{Instructions, TOGETHER};
use super::{Combine, Kernel};
use crate::element::{DataType, Element};

/// The best kernel of those for instructions that this processor has.
pub(super) fn fastest<S: Element, D: Element<Accumulator = S::Accumulator>, C: Combine<S::Accumulator>>()
-> Option<Kernel<S, D>> {
    let is_bf16 = matches!(D::DATA_TYPE, DataType::BF16);
    if is_bf16 && Avx512Bf16::is_here() {
        Some(avx512_bf16::<S, D, C>)
    } else if Avx512::is_here() {
        Some(avx512::<S, D, C>)
    } else if Avx2::is_here() {
        Some(avx2::<S, D, C>)
    } else {
        None
    }
}

/// All kernels for instructions that this processor has, by name.
#[cfg(test)]
pub(super) fn kernels<S: Element, D: Element<Accumulator = S::Accumulator>, C: Combine<S::Accumulator>>()
-> Vec<(&'static str, Kernel<S, D>)> {
    let all: [(_, _, Kernel<S, D>); 3] = [
        ("AVX2", Avx2::is_here(), avx2::<S, D, C>),
        ("AVX-512", Avx512::is_here(), avx512::<S, D, C>),
        ("AVX-512-BF16", Avx512Bf16::is_here(), avx512_bf16::<S, D, C>),
    ];
    all.into_iter().filter(|(_, is_here, _)| *is_here).map(|(name, _, kernel)| (name, kernel)).collect()
}

macro_rules! kernel {
    ($name:ident, $set:ident, $features:literal, [$($feature:tt),*]) => {
        impl $set {
            fn is_here() -> bool {
                $(is_x86_feature_detected!($feature))&&*
            }
        }

        /// # Safety
        /// As [`reduce`](super::reduce), on a processor that has the instructions.
        #[target_feature(enable = $features)]
        unsafe fn $name<S: Element, D: Element<Accumulator = S::Accumulator>, C: Combine<S::Accumulator>>(
            sources: &[*const S],
            destinations: &[*mut D],
            count: usize,
            divisor: Option<usize>,
        ) {
            // SAFETY: the caller's promise.
            unsafe { body::<S, D, C, $set>(sources, destinations, count, divisor) }
        }
    };
}

kernel!(avx2, Avx2, "avx2,f16c", ["avx2", "f16c"]);
kernel!(avx512, Avx512, "avx512f,avx512bw", ["avx512f", "avx512bw"]);
kernel!(
    avx512_bf16,
    Avx512Bf16,
    "avx512f,avx512bw,avx512dq,avx512bf16",
    ["avx512f", "avx512bw", "avx512dq", "avx512bf16"]
);

/// The bit by which a quiet NaN differs from a signalling one.
const QUIET: i32 = 0x0040_0000;

/// AVX2 and F16C.
#[derive(Debug)]
pub(super) struct Avx2;

impl Instructions for Avx2 {
    const CONVERTS: bool = true;

    #[inline(always)]
    unsafe fn widen_f16(halves: [f16; TOGETHER]) -> [f32; TOGETHER] {
        // SAFETY: the caller's promise; any bits are a value of all these types.
        unsafe {
            let [first, second]: [__m128i; 2] = transmute(halves);
            transmute([_mm256_cvtph_ps(first), _mm256_cvtph_ps(second)])
        }
    }

    #[inline(always)]
    unsafe fn narrow_f16(singles: [f32; TOGETHER]) -> [f16; TOGETHER] {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;
        // SAFETY: as above.
        unsafe {
            let [first, second]: [__m256; 2] = transmute(singles);
            transmute([_mm256_cvtps_ph::<NEAREST>(first), _mm256_cvtps_ph::<NEAREST>(second)])
        }
    }

    #[inline(always)]
    unsafe fn widen_bf16(halves: [bf16; TOGETHER]) -> [f32; TOGETHER] {
        // SAFETY: as above.
        unsafe {
            let [first, second]: [__m128i; 2] = transmute(halves);
            let (first, second) = (_mm256_cvtepu16_epi32(first), _mm256_cvtepu16_epi32(second));
            transmute([_mm256_slli_epi32::<16>(first), _mm256_slli_epi32::<16>(second)])
        }
    }

    #[inline(always)]
    unsafe fn narrow_bf16(singles: [f32; TOGETHER]) -> [bf16; TOGETHER] {
        // SAFETY: as above.
        unsafe {
            let [first, second]: [__m256; 2] = transmute(singles);
            // Packing takes four numbers of each in turn.
            let mixed = _mm256_packus_epi32(Self::round_bf16(first), Self::round_bf16(second));
            transmute(_mm256_permute4x64_epi64::<0b11_01_10_00>(mixed))
        }
    }
}

impl Avx2 {
    /// The bits of bfloat16 numbers, in 32 bits each.
    ///
    /// # Safety
    /// The processor must have AVX2.
    // A closure would be compiled without AVX2.
    #[inline(always)]
    unsafe fn round_bf16(number: __m256) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let bits = _mm256_castps_si256(number);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(QUIET));
            let is_nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(number, number));
            _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, is_nan))
        }
    }
}

/// AVX-512F and AVX-512BW.
#[derive(Debug)]
pub(super) struct Avx512;

impl Instructions for Avx512 {
    const CONVERTS: bool = true;

    #[inline(always)]
    unsafe fn widen_f16(halves: [f16; TOGETHER]) -> [f32; TOGETHER] {
        // SAFETY: the caller's promise; any bits are a value of all these types.
        unsafe { transmute(_mm512_cvtph_ps(transmute::<[f16; TOGETHER], __m256i>(halves))) }
    }

    #[inline(always)]
    unsafe fn narrow_f16(singles: [f32; TOGETHER]) -> [f16; TOGETHER] {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // SAFETY: as above.
        unsafe { transmute(_mm512_cvtps_ph::<NEAREST>(transmute::<[f32; TOGETHER], __m512>(singles))) }
    }

    #[inline(always)]
    unsafe fn widen_bf16(halves: [bf16; TOGETHER]) -> [f32; TOGETHER] {
        // SAFETY: as above.
        unsafe {
            transmute(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(transmute::<[bf16; TOGETHER], __m256i>(
                halves,
            ))))
        }
    }

    #[inline(always)]
    unsafe fn narrow_bf16(singles: [f32; TOGETHER]) -> [bf16; TOGETHER] {
        // SAFETY: as above.
        unsafe {
            let number: __m512 = transmute(singles);
            let bits = _mm512_castps_si512(number);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(number, number);
            let result: __m512i = _mm512_mask_or_epi32(rounded, is_nan, bits, _mm512_set1_epi32(QUIET));
            transmute(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(result)))
        }
    }
}

/// As [`Avx512`], with AVX-512DQ and AVX-512-BF16.
#[derive(Debug)]
pub(super) struct Avx512Bf16;

impl Instructions for Avx512Bf16 {
    const CONVERTS: bool = true;

    #[inline(always)]
    unsafe fn widen_f16(halves: [f16; TOGETHER]) -> [f32; TOGETHER] {
        // SAFETY: the caller's promise.
        unsafe { Avx512::widen_f16(halves) }
    }

    #[inline(always)]
    unsafe fn narrow_f16(singles: [f32; TOGETHER]) -> [f16; TOGETHER] {
        // SAFETY: as above.
        unsafe { Avx512::narrow_f16(singles) }
    }

    #[inline(always)]
    unsafe fn widen_bf16(halves: [bf16; TOGETHER]) -> [f32; TOGETHER] {
        // SAFETY: as above.
        unsafe { Avx512::widen_bf16(halves) }
    }

    #[inline(always)]
    unsafe fn narrow_bf16(singles: [f32; TOGETHER]) -> [bf16; TOGETHER] {
        const SUBNORMAL: i32 = 0x20;
        // SAFETY: as above; any bits are a value of all these types.
        unsafe {
            let numbers: __m512 = transmute(singles);
            // The processor would take these for zero.
            if _mm512_fpclass_ps_mask::<SUBNORMAL>(numbers) != 0 {
                return Avx512::narrow_bf16(singles);
            }
            transmute(_mm512_cvtneps_pbh(numbers))
        }
    }
}
