//! Reduce-scatter: a host sends to each rank of another host what its ranks together contribute to that rank's part.

#![allow(unsafe_code)]

use std::ops::Range;

use super::gather::Part;
use super::share::{Memory, partial};
use super::{Hierarchy, Remote};
use crate::arena::RegisteredBuffer;
use crate::call::{Call, Operation};
use crate::element::{Element, Reduction};
use crate::error::Error;
use crate::kernels;
use crate::network::{Content, Incoming};
use crate::shared_memory::{Counts, Layout, Places, SharedMemory, copy_in};

/// Bytes that go to one rank in one transfer.
const SEGMENT: usize = 512 << 10;

/// What the ranks of this host contribute to the parts of all ranks, in some segment.
type Contributions<'a, T> = &'a dyn Fn(usize) -> Places<T>;

impl Hierarchy {
    /// Reduces what all ranks send and leaves this rank its part.
    pub(crate) fn reduce_scatter<T: Element>(
        &mut self,
        call: Call,
        send: &[T],
        receive: &mut [T],
        counts: Counts<'_>,
        reduction: Reduction,
    ) -> Result<(), Error> {
        let local = &mut self.local;
        let Some(remote) = &self.remote else {
            return local.reduce_scatter(call, send, receive, counts, reduction);
        };
        if call.operation == Operation::ReduceScatterV {
            remote.check_agreement(local, call, counts)?;
        }
        remote.reduce_scatter_in_pieces(local, call, send, receive, counts, reduction)
    }

    /// Reduces this rank's part of all buffers into its place in this rank's buffer; the rest stays as it was.
    pub(crate) fn reduce_scatter_registered<T: Element>(
        &mut self,
        call: Call,
        buffer: &mut RegisteredBuffer<T>,
        reduction: Reduction,
    ) -> Result<(), Error> {
        let local = &mut self.local;
        let Some(remote) = &self.remote else {
            return local.reduce_scatter_registered(call, buffer, reduction);
        };
        local.check_owner(buffer)?;
        let result = remote.reduce_scatter_where_it_lies(local, call, buffer, reduction);
        buffer.detached_if_failed(result)
    }
}

impl Remote {
    /// Checks on every rank that all ranks cut their data alike.
    fn check_agreement(&self, local: &mut SharedMemory, call: Call, counts: Counts<'_>) -> Result<(), Error> {
        let world_size = self.world_size();
        let own: Vec<u64> = (0..world_size).map(|rank| counts.of(rank) as u64).collect();
        let all = self.gather_counts(local, call, &own)?;
        for to in 0..world_size {
            let sent = |from: usize| all[from * world_size + to] as usize;
            self.check_counts(local, call, |from| Part {
                from,
                to,
                sent: sent(from),
                expected: counts.of(to),
            })?;
        }
        Ok(())
    }

    fn reduce_scatter_where_it_lies<T: Element>(
        &self,
        local: &mut SharedMemory,
        call: Call,
        buffer: &mut RegisteredBuffer<T>,
        reduction: Reduction,
    ) -> Result<(), Error> {
        local.enter(call, buffer.offset())?;
        let part = call.count / self.world_size();
        let destination = buffer.as_mut_ptr().wrapping_add(self.rank * part);
        let largest = (SEGMENT / size_of::<T>()).min(part.max(1));
        for index in 0..part.div_ceil(largest).max(1) {
            let segment = (index * largest).min(part)..((index + 1) * largest).min(part);
            let contributions = |rank: usize| local.registered_places::<T>(call, rank * part + segment.start);
            let counts = Counts::Even(part);
            // SAFETY: every rank of the host announced a buffer of `count` elements of `T`, is inside this call, and
            // writes only to its own part of its own buffer, which no other reads.
            unsafe {
                let place = destination.wrapping_add(segment.start);
                self.reduce_parts(local, call, &contributions, counts, &segment, place, reduction)?;
            }
        }
        local.conclude(call)
    }

    fn reduce_scatter_in_pieces<T: Element>(
        &self,
        local: &mut SharedMemory,
        call: Call,
        send: &[T],
        receive: &mut [T],
        counts: Counts<'_>,
        reduction: Reduction,
    ) -> Result<(), Error> {
        let (place, world_size) = (local.rank(), self.world_size());
        let longest = (0..world_size).map(|rank| counts.of(rank)).max().unwrap_or(0);
        let layout = Layout::new::<T>(world_size, 0);
        local.in_pieces(call, longest, layout.largest, |local, piece, first| {
            let turn = local.turn;
            let part = |rank: usize| &send[counts.place(rank, &piece)];
            if local.world_size() > 1 {
                let slot = local.arena.slot(place, turn);
                for rank in 0..world_size {
                    // SAFETY: the parts fit a slot, and no peer reads this slot before the step below.
                    unsafe { copy_in(part(rank).as_ptr(), part(rank).len(), layout.part::<T>(slot, rank)) };
                }
            }
            local.meet(call, first)?;
            let contributions = |rank: usize| -> Places<T> {
                let mut places: Places<T> = (0..local.world_size())
                    .map(|peer| layout.part::<T>(local.arena.slot(peer, turn), rank).cast_const().cast())
                    .collect();
                places[place] = part(rank).as_ptr();
                places
            };
            let at = piece.start.min(receive.len());
            let destination = receive[at..].as_mut_ptr();
            // SAFETY: all slots were filled before the step, and the result goes to our own memory.
            unsafe { self.reduce_parts(local, call, &contributions, counts, &piece, destination, reduction) }
        })
    }

    /// Reduces a segment of every rank's part together with the other hosts, and leaves that of this rank at
    /// `destination`.
    ///
    /// # Safety
    /// All contributions of this host must be readable and the destination writable for the segment of their parts,
    /// and nobody else may write to them.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are those of the collective, and where its data lies"
    )]
    unsafe fn reduce_parts<T: Element>(
        &self,
        local: &SharedMemory,
        call: Call,
        contributions: Contributions<'_, T>,
        counts: Counts<'_>,
        segment: &Range<usize>,
        destination: *mut T,
        reduction: Reduction,
    ) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe {
            if self.travels_wide::<T>(reduction) {
                self.reduce_parts_as::<T, T::Accumulator>(
                    local,
                    call,
                    contributions,
                    counts,
                    segment,
                    destination,
                    reduction,
                )
            } else {
                self.reduce_parts_as::<T, T>(
                    local,
                    call,
                    contributions,
                    counts,
                    segment,
                    destination,
                    reduction,
                )
            }
        }
    }

    /// As [`Self::reduce_parts`], where what hosts contribute travels as `W`.
    ///
    /// # Safety
    /// As [`Self::reduce_parts`].
    #[expect(clippy::too_many_arguments, reason = "as above")]
    unsafe fn reduce_parts_as<T: Element, W: Element<Accumulator = T::Accumulator>>(
        &self,
        local: &SharedMemory,
        call: Call,
        contributions: Contributions<'_, T>,
        counts: Counts<'_>,
        segment: &Range<usize>,
        destination: *mut T,
        reduction: Reduction,
    ) -> Result<(), Error> {
        let place = local.rank();
        let length = |rank: usize| segment.end.min(counts.of(rank)) - segment.start.min(counts.of(rank));
        let sources: Vec<(usize, Places<T>)> =
            self.partners_of(place).map(|rank| (rank, contributions(rank))).collect();
        let mut scratch: Vec<Vec<W>> = vec![Vec::new(); sources.len()];
        let mut outgoing = Vec::with_capacity(sources.len());
        for ((rank, sources), scratch) in sources.iter().zip(&mut scratch) {
            let memory = Memory { sources, destinations: &[] };
            // SAFETY: the caller's promise.
            let data = unsafe { partial(memory, 0..length(*rank), reduction, scratch) };
            outgoing.push(self.network.outgoing(*rank, call, Content::Contribution, data));
        }
        let own_length = length(self.rank);
        let mut received: Vec<Vec<W>> = (0..self.hosts.len())
            .map(|host| vec![W::default(); if host == self.own_host { 0 } else { own_length }])
            .collect();
        let mut incoming: Vec<_> = received
            .iter_mut()
            .enumerate()
            .filter(|(host, _)| *host != self.own_host)
            .map(|(host, part)| Incoming::new(self.partner(host, place), Content::Contribution, part))
            .collect();
        self.exchange(local, call, &mut outgoing, &mut incoming)?;
        drop(incoming);
        let mut own = Vec::new();
        let sources = contributions(self.rank);
        let memory = Memory { sources: &sources, destinations: &[] };
        let mut parts: Vec<*const W> = received.iter().map(Vec::as_ptr).collect();
        // SAFETY: the caller's promise; every part holds the segment of this rank's part.
        unsafe {
            parts[self.own_host] = partial(memory, 0..own_length, reduction, &mut own).as_ptr();
            kernels::reduce_between(reduction, self.world_size(), &parts, &[destination], own_length);
        }
        Ok(())
    }
}
