//! A share of a reduction, exchanged between one rank of each host: each of them reduces a piece of the share and gives
//! the result to the others.

#![allow(unsafe_code)]

use std::ops::Range;

use super::Remote;
use super::work::Work;
use crate::call::Call;
use crate::element::{Element, Reduction};
use crate::error::Error;
use crate::kernels;
use crate::shared_memory::{SharedMemory, share};

/// Bytes that go to one host in one transfer.
const SEGMENT: usize = 512 << 10;

/// From this many bytes on a thread that sends is worth its start: it copies to the network while another copies from
/// it and adds.
const WORTH_A_THREAD: usize = 2 << 20;

/// Rounds by which results lag where threads send and receive on their own. One of them that the system does not let run
/// for a moment then keeps the other hosts from nothing, as long as the buffers of the connections have room.
const LAG: usize = 4;

/// Memory of this host's ranks that holds, from the same offset on, what each of them passes into a reduction, and
/// where its result goes. All of it is this rank's alone while it works on its share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory<'a, T> {
    /// Of each rank of the host, in rank order.
    pub(super) sources: &'a [*const T],
    /// At least one.
    pub(super) destinations: &'a [*mut T],
}

// SAFETY: which thread may touch which part when is the concern of those who use the memory.
unsafe impl<T: Send> Send for Memory<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Memory<'_, T> {}

impl Remote {
    /// How many ranks of each host carry shares.
    pub(super) fn carriers(&self) -> usize {
        self.hosts.iter().map(Vec::len).min().unwrap_or(1)
    }

    /// Whether each host's part of a reduction travels as an accumulator, so that nothing is rounded twice.
    pub(super) fn travels_wide<T: Element>(&self, reduction: Reduction) -> bool {
        let needs_all_bits = match reduction {
            Reduction::Average => true,
            // Of integers the low bits depend on low bits alone.
            Reduction::Sum | Reduction::Product => T::DATA_TYPE.is_float(),
            _ => false,
        };
        needs_all_bits
            && size_of::<T::Accumulator>() > size_of::<T>()
            && self.hosts.iter().any(|ranks| ranks.len() > 1)
    }

    /// Reduces a range over all hosts, together with the rank of each other host that carries the same share.
    ///
    /// # Safety
    /// The range must lie within all of `memory`, which nobody else may touch there meanwhile.
    pub(super) unsafe fn reduce_share<T: Element>(
        &self,
        local: &SharedMemory,
        call: Call,
        memory: Memory<'_, T>,
        range: Range<usize>,
        reduction: Reduction,
    ) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe {
            if self.travels_wide::<T>(reduction) {
                self.reduce_share_as::<T, T::Accumulator>(local, call, memory, range, reduction)
            } else {
                self.reduce_share_as::<T, T>(local, call, memory, range, reduction)
            }
        }
    }

    /// As [`Self::reduce_share`], where what hosts contribute travels as `W`.
    ///
    /// # Safety
    /// As [`Self::reduce_share`].
    unsafe fn reduce_share_as<T: Element, W: Element<Accumulator = T::Accumulator>>(
        &self,
        local: &SharedMemory,
        call: Call,
        memory: Memory<'_, T>,
        range: Range<usize>,
        reduction: Reduction,
    ) -> Result<(), Error> {
        let is_long = range.len() * size_of::<W>() >= WORTH_A_THREAD;
        let largest = SEGMENT / size_of::<W>();
        let rounds = share(range.len(), 0, self.hosts.len()).len().div_ceil(largest).max(1);
        let lag = if is_long { LAG } else { 1 };
        let work = Work { remote: self, local, call, memory, range, reduction, largest, rounds, lag };
        // SAFETY: the caller's promise.
        unsafe { if is_long { work.on_two_threads::<W>() } else { work.on_one_thread::<W>() } }
    }
}

/// This host's contribution to a segment: where it lies, if it has one rank whose values travel as they are, or in
/// `scratch`.
///
/// # Safety
/// The segment must lie within all sources, and nobody may write to them there.
pub(super) unsafe fn partial<'a, T: Element, W: Element<Accumulator = T::Accumulator>>(
    memory: Memory<'a, T>,
    segment: Range<usize>,
    reduction: Reduction,
    scratch: &'a mut Vec<W>,
) -> &'a [W] {
    if let ([source], true) = (memory.sources, W::DATA_TYPE == T::DATA_TYPE) {
        // SAFETY: the caller's promise; `W` is `T`.
        return unsafe { std::slice::from_raw_parts(source.add(segment.start).cast(), segment.len()) };
    }
    scratch.resize(segment.len(), W::default());
    let sources: Vec<*const T> = memory.sources.iter().map(|base| base.wrapping_add(segment.start)).collect();
    // An average is a sum until all hosts are in it.
    let reduction = if reduction == Reduction::Average { Reduction::Sum } else { reduction };
    // SAFETY: the caller's promise.
    unsafe {
        kernels::reduce_between(reduction, 1, &sources, &[scratch.as_mut_ptr()], segment.len());
    }
    scratch
}
