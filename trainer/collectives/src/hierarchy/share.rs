//! A share of a reduction, exchanged between one rank of each host: each of them reduces a piece of the share and gives
//! the result to the others.

#![allow(unsafe_code)]

use std::ops::Range;

use super::Remote;
use crate::call::Call;
use crate::element::{Element, Reduction};
use crate::error::Error;
use crate::kernels;
use crate::network::{Content, Incoming};
use crate::shared_memory::{SharedMemory, share};

/// Bytes that go to one host in one transfer.
const SEGMENT: usize = 512 << 10;

/// Memory of this host's ranks that holds, from the same offset on, what each of them passes into a reduction, and
/// where its result goes. All of it is this rank's alone while it works on its share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory<'a, T> {
    /// Of each rank of the host, in rank order.
    pub(super) sources: &'a [*const T],
    /// At least one.
    pub(super) destinations: &'a [*mut T],
}

impl Remote {
    /// How many ranks of each host carry shares.
    pub(super) fn carriers(&self) -> usize {
        self.hosts.iter().map(Vec::len).min().unwrap_or(1)
    }

    /// Whether each host's part of a reduction travels as an accumulator, so that nothing is rounded twice.
    pub(super) fn travels_wide<T: Element>(&self, reduction: Reduction) -> bool {
        let rounds = matches!(reduction, Reduction::Sum | Reduction::Average | Reduction::Product);
        rounds
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
    /// In each round a segment of every contribution goes out, and the results of the round before.
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
        let (hosts, own) = (self.hosts.len(), self.own_host);
        let place = local.rank();
        let largest = SEGMENT / size_of::<W>();
        // Segment `index` of the piece that a host reduces.
        let segment = |host: usize, index: usize| {
            let piece = share(range.len(), host, hosts);
            let (start, end) = (range.start + piece.start, range.start + piece.end);
            end.min(start + index * largest)..end.min(start + (index + 1) * largest)
        };
        let rounds = share(range.len(), 0, hosts).len().div_ceil(largest).max(1);
        let mut contributions: Vec<Vec<W>> = vec![Vec::new(); hosts];
        let mut received: Vec<Vec<W>> = vec![Vec::new(); hosts];
        for round in 0..=rounds {
            let mut outgoing = Vec::new();
            let mut incoming = Vec::new();
            // Every transfer is of a segment that no other of this round touches.
            for (host, (contribution, received)) in
                contributions.iter_mut().zip(&mut received).enumerate().filter(|(host, _)| *host != own)
            {
                let peer = self.hosts[host][place];
                if round < rounds {
                    // SAFETY: the segment lies within the range of the caller's promise, and no result was yet
                    // received for it.
                    let data = unsafe { partial(memory, segment(host, round), reduction, contribution) };
                    outgoing.push(self.network.outgoing(peer, call, Content::Contribution, data));
                    received.resize(segment(own, round).len(), W::default());
                    incoming.push(Incoming::new(peer, Content::Contribution, received));
                }
                if let Some(last) = round.checked_sub(1) {
                    // SAFETY: as above; the own result of the last round is complete, and what the other host
                    // reduced was contributed before.
                    let (ours, theirs) = unsafe {
                        (slice(memory, segment(own, last)), slice_mut(memory, segment(host, last)))
                    };
                    outgoing.push(self.network.outgoing(peer, call, Content::Result, ours));
                    incoming.push(Incoming::new(peer, Content::Result, theirs));
                }
            }
            self.exchange(local, call, &mut outgoing, &mut incoming)?;
            // SAFETY: the caller's promise; all transfers have ended.
            unsafe {
                if let Some(last) = round.checked_sub(1) {
                    (0..hosts)
                        .filter(|host| *host != own)
                        .for_each(|host| spread(memory, segment(host, last)));
                }
                if round < rounds {
                    let segment = segment(own, round);
                    self.combine(memory, segment, reduction, &mut contributions[own], &received);
                }
            }
        }
        Ok(())
    }

    /// Combines the contributions of all hosts to a segment, of which `received` holds those of the others, into all
    /// destinations.
    ///
    /// # Safety
    /// The segment must lie within all of `memory`, which nobody else may touch there meanwhile.
    unsafe fn combine<T: Element, W: Element<Accumulator = T::Accumulator>>(
        &self,
        memory: Memory<'_, T>,
        segment: Range<usize>,
        reduction: Reduction,
        scratch: &mut Vec<W>,
        received: &[Vec<W>],
    ) {
        let mut parts: Vec<*const W> = received.iter().map(Vec::as_ptr).collect();
        // SAFETY: the caller's promise.
        parts[self.own_host] = unsafe { partial(memory, segment.clone(), reduction, scratch) }.as_ptr();
        let destinations: Vec<*mut T> =
            memory.destinations.iter().map(|base| base.wrapping_add(segment.start)).collect();
        // SAFETY: every part holds the segment; a destination may be the own part itself.
        unsafe {
            kernels::reduce_between(reduction, self.world_size(), &parts, &destinations, segment.len());
        }
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

/// # Safety
/// The segment must lie within the first destination, and nobody may write to it there.
unsafe fn slice<T: Element>(memory: Memory<'_, T>, segment: Range<usize>) -> &[T] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(memory.destinations[0].add(segment.start), segment.len()) }
}

/// # Safety
/// The segment must lie within the first destination, and nobody else may touch it there.
unsafe fn slice_mut<T: Element>(memory: Memory<'_, T>, segment: Range<usize>) -> &mut [T] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(memory.destinations[0].add(segment.start), segment.len()) }
}

/// Copies a segment from the first destination to the others.
///
/// # Safety
/// The segment must lie within all destinations, which are apart from each other, and nobody else may touch it.
unsafe fn spread<T: Element>(memory: Memory<'_, T>, segment: Range<usize>) {
    let [first, others @ ..] = memory.destinations else { return };
    for other in others {
        // SAFETY: the caller's promise.
        unsafe {
            let (from, to) = (first.add(segment.start), other.add(segment.start));
            std::ptr::copy_nonoverlapping(from, to, segment.len());
        }
    }
}
