//! Half-precision numbers to `f32` and back, without branches, so that compilers turn loops of them into vectors.
//! Every conversion gives the bits of the `half` crate and of F16C: to the nearest, ties to even, NaNs quiet (but see
//! [`widen_bf16`]).

#![expect(
    clippy::inline_always,
    reason = "a conversion must be compiled inside the function that enables the processor's features"
)]

use half::{bf16, f16};

/// A signalling NaN stays one until it is narrowed or something is added: looking for them takes as long as adding.
#[inline(always)]
pub(crate) fn widen_bf16(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

#[inline(always)]
pub(crate) fn narrow_bf16(value: f32) -> bf16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let quiet = bits >> 16 | 0x0040;
    bf16::from_bits(if value.is_nan() { quiet } else { rounded } as u16)
}

#[inline(always)]
pub(crate) fn widen_f16(value: f16) -> f32 {
    let bits = u32::from(value.to_bits());
    let sign = (bits & 0x8000) << 16;
    let magnitude = (bits & 0x7fff) << 13;
    // Multiplying moves the exponent and normalises subnormal numbers, exactly.
    let finite = f32::from_bits(magnitude) * f32::from_bits((254 - 15) << 23);
    let infinite = magnitude | 0x7f80_0000;
    let special = if bits << 22 == 0 { infinite } else { infinite | 0x0040_0000 };
    let magnitude = if bits & 0x7c00 == 0x7c00 { special } else { finite.to_bits() };
    f32::from_bits(sign | magnitude)
}

#[inline(always)]
pub(crate) fn narrow_f16(value: f32) -> f16 {
    let bits = value.to_bits();
    let sign = bits >> 16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    // Below the smallest normal number: adding 0.5 lets the processor round at the last bit of a subnormal.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let odd = magnitude >> 13 & 1;
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + odd) >> 13;
    let quiet = 0x7e00 | (magnitude >> 13 & 0x03ff);
    let finite = if magnitude < 113 << 23 { subnormal } else { normal };
    // From 65520 on, numbers round to infinity.
    let number = if magnitude >= 0x477f_f000 { 0x7c00 } else { finite };
    f16::from_bits((sign | if magnitude > 0x7f80_0000 { quiet } else { number }) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_widens_to_the_bits_of_the_half_crate() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (widen_f16(f16::from_bits(bits)), f16::from_bits(bits).to_f32_const());
            assert_eq!(ours.to_bits(), theirs.to_bits(), "f16 {bits:#06x}");
            let (ours, theirs) = (widen_bf16(bf16::from_bits(bits)), bf16::from_bits(bits).to_f32_const());
            let quiet = if ours.is_nan() { 0x0040_0000 } else { 0 };
            assert_eq!(ours.to_bits() | quiet, theirs.to_bits(), "bf16 {bits:#06x}");
        }
    }

    #[test]
    fn singles_narrow_to_the_bits_of_the_half_crate() {
        // Every exponent and sign, with mantissas around each tie.
        let mantissas = (0..1 << 23).step_by(1 << 12).flat_map(|middle: u32| {
            [middle.wrapping_sub(1), middle, middle + 1].map(|mantissa| mantissa & 0x007f_ffff)
        });
        for mantissa in mantissas {
            for upper in 0..1 << 9 {
                let value = f32::from_bits(upper << 23 | mantissa);
                let expected = f16::from_f32_const(value).to_bits();
                assert_eq!(narrow_f16(value).to_bits(), expected, "f16 of {:#010x}", value.to_bits());
                let expected = bf16::from_f32_const(value).to_bits();
                assert_eq!(narrow_bf16(value).to_bits(), expected, "bf16 of {:#010x}", value.to_bits());
            }
        }
    }
}
