//! The arithmetic of a reduction, compiled for several instruction sets and chosen at run time.

#![allow(unsafe_code)]
#![expect(
    clippy::inline_always,
    reason = "a body must be compiled inside the function that enables its features"
)]

use smallvec::SmallVec;

use crate::element::{Arithmetic, Element, Reduction};

/// Elements reduced at a time with many sources: the accumulators stay in the first-level cache.
const BLOCK: usize = 1024;

/// Elements reduced at a time with few sources: the accumulators stay in registers.
const CHUNK: usize = 64;

/// More sources than this evict each other from the first-level cache when they are read side by side: buffers that
/// begin at page boundaries share its sets.
const SIDE_BY_SIDE: usize = 8;

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

/// # Safety
/// As [`reduce`].
unsafe fn dispatch<S: Element, D: Element<Accumulator = S::Accumulator>, C: Combine<S::Accumulator>>(
    sources: &[*const S],
    destinations: &[*mut D],
    count: usize,
    divisor: Option<usize>,
) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
            // SAFETY: the processor has the features; the pointers are the caller's promise.
            return unsafe { avx512::<S, D, C>(sources, destinations, count, divisor) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has the feature; the pointers are the caller's promise.
            return unsafe { avx2::<S, D, C>(sources, destinations, count, divisor) };
        }
    }
    // SAFETY: the pointers are the caller's promise.
    unsafe { body::<S, D, C>(sources, destinations, count, divisor) }
}

/// # Safety
/// As [`reduce`], on a processor with AVX-512F and AVX-512BW.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn avx512<S: Element, D: Element<Accumulator = S::Accumulator>, C: Combine<S::Accumulator>>(
    sources: &[*const S],
    destinations: &[*mut D],
    count: usize,
    divisor: Option<usize>,
) {
    // SAFETY: the caller's promise.
    unsafe { body::<S, D, C>(sources, destinations, count, divisor) }
}

/// # Safety
/// As [`reduce`], on a processor with AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn avx2<S: Element, D: Element<Accumulator = S::Accumulator>, C: Combine<S::Accumulator>>(
    sources: &[*const S],
    destinations: &[*mut D],
    count: usize,
    divisor: Option<usize>,
) {
    // SAFETY: the caller's promise.
    unsafe { body::<S, D, C>(sources, destinations, count, divisor) }
}

/// # Safety
/// As [`reduce`].
#[inline(always)]
unsafe fn body<S: Element, D: Element<Accumulator = S::Accumulator>, C: Combine<S::Accumulator>>(
    sources: &[*const S],
    destinations: &[*mut D],
    count: usize,
    divisor: Option<usize>,
) {
    let chunks = if sources.len() <= SIDE_BY_SIDE { count / CHUNK } else { 0 };
    for chunk in 0..chunks {
        // SAFETY: the chunk lies within the `count` elements of the caller's promise.
        unsafe {
            match (sources, destinations) {
                // The most frequent case, whose loops over places the compiler then unrolls.
                (&[left, right], &[destination]) => {
                    piece::<S, D, C, CHUNK>(&[left, right], &[destination], chunk * CHUNK, CHUNK, divisor);
                }
                _ => piece::<S, D, C, CHUNK>(sources, destinations, chunk * CHUNK, CHUNK, divisor),
            }
        };
    }
    let mut start = chunks * CHUNK;
    while start < count {
        let length = BLOCK.min(count - start);
        // SAFETY: as above.
        unsafe { piece::<S, D, C, BLOCK>(sources, destinations, start, length, divisor) };
        start += length;
    }
}

/// Reduces `length <= LARGEST` elements from `start` on.
///
/// # Safety
/// As [`reduce`], for `start + length` elements.
#[inline(always)]
unsafe fn piece<
    S: Element,
    D: Element<Accumulator = S::Accumulator>,
    C: Combine<S::Accumulator>,
    const LARGEST: usize,
>(
    sources: &[*const S],
    destinations: &[*mut D],
    start: usize,
    length: usize,
    divisor: Option<usize>,
) {
    let Some((first, rest)) = sources.split_first() else { return };
    let mut accumulators = [S::Accumulator::default(); LARGEST];
    let accumulators = &mut accumulators[..length];
    // SAFETY: `start + length` elements are readable, and nothing writes to them meanwhile.
    let source = unsafe { std::slice::from_raw_parts(first.add(start), length) };
    for (accumulator, value) in accumulators.iter_mut().zip(source) {
        *accumulator = value.widen();
    }
    for other in rest {
        // SAFETY: as above.
        let source = unsafe { std::slice::from_raw_parts(other.add(start), length) };
        for (accumulator, value) in accumulators.iter_mut().zip(source) {
            *accumulator = C::combine(*accumulator, value.widen());
        }
    }
    if let Some(divisor) = divisor {
        for accumulator in accumulators.iter_mut() {
            *accumulator = accumulator.divided_by(divisor);
        }
    }
    for destination in destinations {
        // SAFETY: `start + length` elements are writable, and no other reference to them is alive.
        let destination = unsafe { std::slice::from_raw_parts_mut(destination.add(start), length) };
        for (value, accumulator) in destination.iter_mut().zip(accumulators.iter()) {
            *value = D::narrow(*accumulator);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reduced<T: Element>(reduction: Reduction, inputs: &[Vec<T>]) -> Vec<T> {
        let count = inputs[0].len();
        let mut output = vec![T::default(); count];
        let sources: Vec<*const T> = inputs.iter().map(Vec::as_ptr).collect();
        // SAFETY: all vectors hold `count` elements and `output` is apart from the inputs.
        unsafe { reduce(reduction, &sources, &[output.as_mut_ptr()], count) };
        output
    }

    #[test]
    fn every_instruction_set_gives_the_bits_of_the_plain_loop() {
        let inputs: Vec<Vec<f32>> = (0..5)
            .map(|rank| (0..2500).map(|i| ((i * 7919 + rank * 104_729) as f32).sin() * 1e3).collect())
            .collect();
        let sum = reduced(Reduction::Sum, &inputs);
        for (i, value) in sum.iter().enumerate() {
            let expected = inputs.iter().skip(1).fold(inputs[0][i], |sum, input| sum + input[i]);
            assert_eq!(value.to_bits(), expected.to_bits(), "element {i}");
        }
    }

    #[test]
    fn half_types_round_once() {
        let small = half::f16::from_f32(2048.0);
        let one = half::f16::from_f32(1.0);
        // 2048 + 1 is not representable: adding in f16 would lose both ones.
        let sum = reduced(Reduction::Sum, &[vec![small], vec![one], vec![one]]);
        assert_eq!(sum, [half::f16::from_f32(2050.0)]);
    }
}
