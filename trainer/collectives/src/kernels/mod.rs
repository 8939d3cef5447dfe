//! The arithmetic of a reduction, compiled for several instruction sets and chosen at run time.

#![allow(unsafe_code)]
#![expect(
    clippy::inline_always,
    reason = "a body must be compiled inside the function that enables its features"
)]

mod body;
mod instructions;
#[cfg(target_arch = "x86_64")]
mod x86;

use smallvec::SmallVec;

use crate::element::{Arithmetic, Element, Reduction};
use body::body;
use instructions::Baseline;
pub(crate) use instructions::{Instructions, TOGETHER};

/// Stores `sources[0][i] ∘ sources[1][i] ∘ …` into element `i` of every destination, for `count` elements.
///
/// # Safety
/// Every source must be readable and every destination writable for `count` elements, aligned for `T`, and
/// nobody else may touch them during the call. A destination may be the same address as a source, but ranges
/// must not overlap in another way.
pub(crate) unsafe fn reduce<T: Element>(
    reduction: Reduction,
    sources: &[*const T],
    destinations: &[*mut T],
    count: usize,
) {
    // SAFETY: the caller's promise.
    unsafe { reduce_between(reduction, sources.len(), sources, destinations, count) };
}

/// As [`reduce`], where an average divides by `contributions`, and sources and destinations may be of two types with
/// the same accumulator, whose bits cannot be combined.
///
/// # Safety
/// As [`reduce`], for both types.
pub(crate) unsafe fn reduce_between<S: Element, D: Element<Accumulator = S::Accumulator>>(
    reduction: Reduction,
    contributions: usize,
    sources: &[*const S],
    destinations: &[*mut D],
    count: usize,
) {
    // SAFETY: the caller's promise is exactly what `dispatch` asks for.
    unsafe {
        match reduction {
            Reduction::Sum => dispatch::<S, D, Add>(sources, destinations, count, None),
            Reduction::Average => dispatch::<S, D, Add>(sources, destinations, count, Some(contributions)),
            Reduction::Minimum => dispatch::<S, D, Minimum>(sources, destinations, count, None),
            Reduction::Maximum => dispatch::<S, D, Maximum>(sources, destinations, count, None),
            Reduction::Product => dispatch::<S, D, Multiply>(sources, destinations, count, None),
            Reduction::BitAnd => bitwise::<S, D, And>(sources, destinations, count),
            Reduction::BitOr => bitwise::<S, D, Or>(sources, destinations, count),
            Reduction::BitXor => bitwise::<S, D, ExclusiveOr>(sources, destinations, count),
        }
    }
}

/// Bits know no type: they are combined as bytes.
///
/// # Safety
/// As [`reduce`].
unsafe fn bitwise<S: Element, D: Element, C: Combine<i32>>(
    sources: &[*const S],
    destinations: &[*mut D],
    count: usize,
) {
    debug_assert_eq!(S::DATA_TYPE, D::DATA_TYPE);
    let sources: SmallVec<[*const u8; 16]> = sources.iter().map(|source| source.cast()).collect();
    let destinations: SmallVec<[*mut u8; 16]> =
        destinations.iter().map(|destination| destination.cast()).collect();
    // SAFETY: the caller's promise, of the bytes of the elements.
    unsafe { dispatch::<u8, u8, C>(&sources, &destinations, count * size_of::<S>(), None) };
}

trait Combine<A> {
    fn combine(left: A, right: A) -> A;
}

macro_rules! combine {
    ($name:ident, [$($generic:ident: $bound:ident)?], $accumulator:ty, $operation:expr) => {
        struct $name;

        impl$(<$generic: $bound>)? Combine<$accumulator> for $name {
            #[inline(always)]
            fn combine(left: $accumulator, right: $accumulator) -> $accumulator {
                $operation(left, right)
            }
        }
    };
}

combine!(Add, [A: Arithmetic], A, A::add);
combine!(Multiply, [A: Arithmetic], A, A::times);
combine!(Minimum, [A: Arithmetic], A, A::smaller);
combine!(Maximum, [A: Arithmetic], A, A::larger);
combine!(And, [], i32, |left, right| left & right);
combine!(Or, [], i32, |left, right| left | right);
combine!(ExclusiveOr, [], i32, |left, right| left ^ right);

/// A reduction compiled for some instructions; to be called as [`reduce`], where the processor has them.
type Kernel<S, D> = unsafe fn(&[*const S], &[*mut D], usize, Option<usize>);

/// # Safety
/// As [`reduce`].
unsafe fn dispatch<S: Element, D: Element<Accumulator = S::Accumulator>, C: Combine<S::Accumulator>>(
    sources: &[*const S],
    destinations: &[*mut D],
    count: usize,
    divisor: Option<usize>,
) {
    #[cfg(target_arch = "x86_64")]
    if let Some(kernel) = x86::fastest::<S, D, C>() {
        // SAFETY: the processor has what it needs; the pointers are the caller's promise.
        return unsafe { kernel(sources, destinations, count, divisor) };
    }
    // SAFETY: the pointers are the caller's promise.
    unsafe { body::<S, D, C, Baseline>(sources, destinations, count, divisor) }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    /// The kernels that this processor can run, by name.
    fn kernels<S: Element, D: Element<Accumulator = S::Accumulator>, C: Combine<S::Accumulator>>()
    -> Vec<(&'static str, Kernel<S, D>)> {
        let mut kernels: Vec<(_, Kernel<S, D>)> = vec![("baseline", body::<S, D, C, Baseline>)];
        #[cfg(target_arch = "x86_64")]
        kernels.extend(x86::kernels::<S, D, C>());
        kernels
    }

    /// Checks that every kernel gives the bits of the plain loop.
    fn check<S: Element, D: Element<Accumulator = S::Accumulator>, C: Combine<S::Accumulator>>(
        inputs: &[Vec<S>],
        divisor: Option<usize>,
    ) {
        let count = inputs[0].len();
        let expected = |index: usize| {
            let all = inputs.iter().map(|input| input[index].widen()).reduce(C::combine).unwrap();
            D::narrow(divisor.map_or(all, |divisor| all.divided_by(divisor)))
        };
        let expected: Vec<D> = (0..count).map(expected).collect();
        let sources: Vec<*const S> = inputs.iter().map(Vec::as_ptr).collect();
        for (name, kernel) in kernels::<S, D, C>() {
            let mut outputs = [vec![D::default(); count], vec![D::default(); count]];
            let [first, second] = outputs.each_mut().map(Vec::as_mut_ptr);
            // SAFETY: all vectors hold `count` elements, and the outputs are apart from the inputs and each other; the
            // processor can run this kernel.
            unsafe {
                kernel(&sources, &[first], count, divisor);
                kernel(&sources, &[second, first], count, divisor);
            }
            for output in &outputs {
                let bytes = |value: &D| bytemuck::bytes_of(value).to_vec();
                let wrong = (0..count).find(|index| bytes(&output[*index]) != bytes(&expected[*index]));
                let types = (S::DATA_TYPE.name(), D::DATA_TYPE.name());
                assert_eq!(wrong, None, "{name}: {types:?}, {} sources of {count}", sources.len());
            }
        }
    }

    /// Counts on both sides of what is converted and reduced together, with few sources and with many.
    fn check_all_counts<T: Element, C: Combine<T::Accumulator>>(value: impl Fn(u64) -> T) {
        let counts = (0..=140).chain([1023, 1024, 1025, 3000]);
        for (count, sources) in counts.zip([1, 2, 3, 5, 9].into_iter().cycle()) {
            let input = |rank: usize| (0..count).map(|index| value(mixed(rank * 4096 + index))).collect();
            let inputs: Vec<Vec<T>> = (0..sources).map(input).collect();
            check::<T, T, C>(&inputs, [None, Some(sources + 1)][count % 2]);
        }
    }

    fn mixed(seed: usize) -> u64 {
        let mixed = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(23)
    }

    #[test]
    fn every_kernel_gives_the_bits_of_the_plain_loop() {
        // Which of two NaNs comes of a sum is up to the processor.
        let number = |value: f32| if value.is_nan() { 0.75 } else { value };
        check_all_counts::<f32, Add>(|bits| number(f32::from_bits(bits as u32)));
        check_all_counts::<f32, Minimum>(|bits| f32::from_bits(bits as u32));
        check_all_counts::<f64, Multiply>(|bits| 1.0 + (bits >> 12) as f64 / 1e12);
        let half = |bits| f16::from_bits(bits as u16);
        check_all_counts::<f16, Add>(|bits| if half(bits).is_nan() { f16::ONE } else { half(bits) });
        check_all_counts::<f16, Maximum>(half);
        let half = |bits| bf16::from_bits(bits as u16);
        check_all_counts::<bf16, Add>(|bits| if half(bits).is_nan() { bf16::ONE } else { half(bits) });
        check_all_counts::<bf16, Minimum>(half);
        check_all_counts::<i32, Add>(|bits| bits as i32);
        check_all_counts::<i64, Maximum>(u64::cast_signed);
        check_all_counts::<i8, Multiply>(|bits| bits as i8);
        check_all_counts::<u8, And>(|bits| bits as u8);
    }

    #[test]
    fn every_kernel_widens_every_half() {
        let all = || 0..=u16::MAX;
        check::<f16, f32, Add>(&[all().map(f16::from_bits).collect()], None);
        check::<bf16, f32, Add>(&[all().map(bf16::from_bits).collect()], None);
    }

    #[test]
    fn every_kernel_narrows_singles_around_every_tie() {
        let ties = (0..1 << 23).step_by(1 << 12);
        let mantissas: Vec<u32> = ties.flat_map(|tie: u32| [tie.wrapping_sub(1), tie, tie + 1]).collect();
        for upper in 0..1 << 9 {
            let single = |mantissa: &u32| f32::from_bits(upper << 23 | mantissa & 0x007f_ffff);
            let singles = [mantissas.iter().map(single).collect()];
            check::<f32, f16, Add>(&singles, None);
            check::<f32, bf16, Add>(&singles, None);
        }
    }

    #[test]
    fn half_types_round_once() {
        let (large, one) = (vec![f16::from_f32(2048.0)], vec![f16::ONE]);
        // 2048 + 1 is not representable: adding in f16 would lose both ones.
        let mut sum = [f16::ZERO];
        // SAFETY: all of them hold one element, and the sum is apart from the others.
        unsafe {
            reduce(Reduction::Sum, &[large.as_ptr(), one.as_ptr(), one.as_ptr()], &[sum.as_mut_ptr()], 1);
        }
        assert_eq!(sum, [f16::from_f32(2050.0)]);
    }
}
