//! The loops of a reduction, the same for every set of instructions.

use super::Combine;
use super::instructions::Instructions;
use crate::element::{Arithmetic, Element};

/// Elements reduced at a time with many sources: the accumulators stay in the first-level cache.
const BLOCK: usize = 1024;

/// Elements reduced at a time with few sources: the accumulators stay in registers.
const CHUNK: usize = 64;

/// More sources than this evict each other from the first-level cache when they are read side by side: buffers that
/// begin at page boundaries share its sets.
const SIDE_BY_SIDE: usize = 8;

/// # Safety
/// As [`reduce`](super::reduce), on a processor that has the instructions of `I`.
#[inline(always)]
pub(super) unsafe fn body<
    S: Element,
    D: Element<Accumulator = S::Accumulator>,
    C: Combine<S::Accumulator>,
    I: Instructions,
>(
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
                    let sources = [left, right];
                    piece::<S, D, C, I, CHUNK>(&sources, &[destination], chunk * CHUNK, CHUNK, divisor);
                }
                _ => piece::<S, D, C, I, CHUNK>(sources, destinations, chunk * CHUNK, CHUNK, divisor),
            }
        };
    }
    let mut start = chunks * CHUNK;
    while start < count {
        let length = BLOCK.min(count - start);
        // SAFETY: as above.
        unsafe { piece::<S, D, C, I, BLOCK>(sources, destinations, start, length, divisor) };
        start += length;
    }
}

/// Reduces `length <= LARGEST` elements from `start` on.
///
/// # Safety
/// As [`body`], for `start + length` elements.
#[inline(always)]
unsafe fn piece<
    S: Element,
    D: Element<Accumulator = S::Accumulator>,
    C: Combine<S::Accumulator>,
    I: Instructions,
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
    // SAFETY: `start + length` elements are readable, and nothing writes to them meanwhile; the processor is as promised.
    unsafe {
        let source = std::slice::from_raw_parts(first.add(start), length);
        S::take_in::<I>(source, accumulators, |_, value| value);
    }
    for other in rest {
        // SAFETY: as above.
        unsafe {
            let source = std::slice::from_raw_parts(other.add(start), length);
            S::take_in::<I>(source, accumulators, C::combine);
        }
    }
    if let Some(divisor) = divisor {
        for accumulator in accumulators.iter_mut() {
            *accumulator = accumulator.divided_by(divisor);
        }
    }
    for destination in destinations {
        // SAFETY: `start + length` elements are writable, and no other reference to them is alive; the processor is as
        // promised.
        unsafe {
            let destination = std::slice::from_raw_parts_mut(destination.add(start), length);
            D::give_out::<I>(accumulators, destination);
        }
    }
}
