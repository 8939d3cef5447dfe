//! All-reduce and reduce: which algorithm for which size, and the algorithms.
//!
//! The limits between algorithms are constants. A probe of 5 ms at the start, which timed both algorithms at the sizes
//! around each limit and gave the usual choice up only for one a tenth faster, was tried and left out: near a limit the
//! two are equal by nature, so that with two ranks on two processors every staged size stayed within 8 % of its time
//! (16 KiB: 4.3 µs either way, 256 KiB: 36 µs) and short registered buffers within 13 %, as did sizes that no limit
//! touches. With four ranks on two processors so short a measurement chose wrongly and cost a quarter at 64 KiB (22 to
//! 28 µs).

#![allow(unsafe_code)]

use std::ops::Range;

use smallvec::SmallVec;

use super::SharedMemory;
use super::parts::{copy_in, copy_out};
use crate::arena::{RegisteredBuffer, SLOT};
use crate::call::Call;
use crate::element::{Element, Reduction};
use crate::error::Error;
use crate::kernels;

/// Registered buffers up to this many bytes go through the slots: a copy costs less than a second step. Steps are dear
/// where ranks share processors.
const FLAT_LIMIT: usize = 256;
const FLAT_LIMIT_OF_CROWD: usize = 4 << 10;

/// Private memory of this many bytes and more is read by the other ranks where the system allows it: they then take
/// few steps, and what a rank contributes is not copied.
const SINGLE_COPY_MINIMUM: usize = 4 << 20;

/// Staged reductions of two ranks are computed whole by both, in pieces that stay in the second-level cache: neither
/// reads more of the other than if each reduced a share. With more ranks the additional reading costs more than the
/// step that is saved, except for small reductions up to this many bytes.
const SYMMETRIC_PIECE: usize = 256 << 10;
const SYMMETRIC_LIMIT_OF_MANY: usize = 64 << 10;

/// Bytes of the smallest piece of a pipelined reduction.
const SMALLEST_PIECE: usize = 64 << 10;

/// Slices of a reduction are cut at multiples of this many elements, so ranks do not share cache lines.
pub(super) const GRAIN: usize = 64;

/// Addresses of a place in the memory of every rank.
pub(crate) type Places<T> = SmallVec<[*const T; 16]>;

impl SharedMemory {
    /// Reduces a registered buffer in place: each rank reduces one slice of all buffers and stores it to all.
    pub(crate) fn all_reduce_registered<T: Element>(
        &mut self,
        call: Call,
        buffer: &mut RegisteredBuffer<T>,
        reduction: Reduction,
    ) -> Result<(), Error> {
        self.check_owner(buffer)?;
        let limit = if self.crowded { FLAT_LIMIT_OF_CROWD } else { FLAT_LIMIT };
        if size_of_val(&**buffer) <= limit {
            // SAFETY: the buffer is ours, and peers touch only the slots.
            return unsafe {
                let data = buffer.as_mut_ptr();
                self.reduce_symmetric(call, data, Some(data), buffer.len(), reduction)
            };
        }
        let result = self.reduce_direct(call, buffer, reduction);
        buffer.detached_if_failed(result)
    }

    fn reduce_direct<T: Element>(
        &mut self,
        call: Call,
        buffer: &RegisteredBuffer<T>,
        reduction: Reduction,
    ) -> Result<(), Error> {
        self.enter(call, buffer.offset())?;
        let slice = share(call.count, self.rank, self.world_size());
        let places = self.registered_places::<T>(call, slice.start);
        let destinations: SmallVec<[*mut T; 16]> = places.iter().map(|place| place.cast_mut()).collect();
        // SAFETY: every rank announced a buffer of `count` elements of `T` and is inside this call; this slice of
        // all of them is ours until the next step. A place is its own source.
        unsafe { kernels::reduce(reduction, &places, &destinations, slice.len()) };
        self.step(call)
    }

    /// Where element `start` of the registered buffer of each rank in this call lies.
    pub(crate) fn registered_places<T: Element>(&self, call: Call, start: usize) -> Places<T> {
        let slot = (call.index & 1) as usize;
        (0..self.world_size())
            .map(|rank| {
                let (_, offset) = self.control.announced(rank, slot);
                self.arena.address(rank, offset + start * size_of::<T>()).cast_const().cast()
            })
            .collect()
    }

    /// The slots of all ranks in some turn.
    pub(crate) fn slot_places<T: Element>(&self, turn: usize) -> Places<T> {
        (0..self.world_size()).map(|peer| self.arena.slot(peer, turn).cast_const().cast()).collect()
    }

    pub(crate) fn check_owner<T: Element>(&self, buffer: &RegisteredBuffer<T>) -> Result<(), Error> {
        if buffer.belongs_to(&self.arena) {
            return Ok(());
        }
        Err(Error::InvalidArgument("the buffer was allocated by another communicator".into()))
    }

    /// Reduces private memory onto every rank or only onto `root`.
    pub(crate) fn reduce_staged<T: Element>(
        &mut self,
        call: Call,
        data: &mut [T],
        reduction: Reduction,
        root: Option<usize>,
    ) -> Result<(), Error> {
        let (count, bytes) = (data.len(), size_of_val(data));
        let reads = root.is_none() && bytes >= SINGLE_COPY_MINIMUM && self.world_size() > 1;
        if reads && self.reduce_single_copy(call, data, reduction)? {
            return Ok(());
        }
        let source = data.as_mut_ptr();
        let wanted = root.is_none_or(|root| root == self.rank).then_some(source);
        // SAFETY: the data is ours for `count` elements, and no peer knows of it.
        unsafe {
            if bytes <= SYMMETRIC_LIMIT_OF_MANY || self.world_size() <= 2 {
                self.reduce_symmetric(call, source, wanted, count, reduction)
            } else {
                self.reduce_pipelined(call, source, wanted, count, reduction)
            }
        }
    }

    /// Every rank that wants the result computes all of it from everybody's slots: one step.
    ///
    /// # Safety
    /// `source` must be readable and `wanted` writable for `count` elements that no other rank touches; they may be
    /// the same.
    unsafe fn reduce_symmetric<T: Element>(
        &mut self,
        call: Call,
        source: *mut T,
        wanted: Option<*mut T>,
        count: usize,
        reduction: Reduction,
    ) -> Result<(), Error> {
        self.in_pieces(call, count, SYMMETRIC_PIECE / size_of::<T>(), |group, piece, first| {
            let (rank, turn) = (group.rank, group.turn);
            // SAFETY: a piece fits a slot, and no peer reads this slot before the step below.
            unsafe { copy_in(source.add(piece.start), piece.len(), group.arena.slot(rank, turn)) };
            group.meet(call, first)?;
            let Some(destination) = wanted else { return Ok(()) };
            let mut sources: Places<T> = group.slot_places(turn);
            // SAFETY: all slots were filled before the step, and the result goes to our own memory.
            unsafe {
                sources[rank] = source.add(piece.start);
                kernels::reduce(reduction, &sources, &[destination.add(piece.start)], piece.len());
            }
            Ok(())
        })
    }

    /// Each rank reduces its share of every piece and puts the result into a slot for the others. Between two steps
    /// a rank copies in one piece, reduces the one before, and copies out the one before that.
    ///
    /// Two slots of each kind suffice: what is written to a slot in one interval is read in the next, and the slot
    /// is filled again in the one after that, when every rank has taken the step between. The last interval has no
    /// step behind it, but only reads results, whose slots the next call fills after a step of its own.
    ///
    /// # Safety
    /// As [`Self::reduce_symmetric`].
    unsafe fn reduce_pipelined<T: Element>(
        &mut self,
        call: Call,
        source: *mut T,
        wanted: Option<*mut T>,
        count: usize,
        reduction: Reduction,
    ) -> Result<(), Error> {
        self.check_failure(call)?;
        let largest = self.piece_length::<T>(count);
        let pieces = count.div_ceil(largest);
        let piece = |index: usize| index * largest..count.min((index + 1) * largest);
        let base = self.turn;
        // Nothing to be read from the slots of an unfinished call: the group has failed then.
        self.turn += pieces;
        for interval in 0..pieces + 2 {
            // SAFETY: the caller's promise; each slot is written and read in intervals a step apart.
            unsafe {
                if interval < pieces {
                    self.contribute(source, piece(interval), base + interval);
                }
                if let Some(index) = interval.checked_sub(1).filter(|index| *index < pieces) {
                    self.reduce_share(source, wanted, piece(index), base + index, reduction);
                }
                if let (Some(index), Some(wanted)) = (interval.checked_sub(2), wanted) {
                    self.collect_shares(wanted, piece(index), base + index);
                }
            }
            if interval <= pieces {
                self.meet(call, interval == 0)?;
            }
        }
        Ok(())
    }

    /// Elements of a piece: several pieces of a large buffer overlap, but where ranks wait for a processor at every
    /// step few steps are better.
    fn piece_length<T>(&self, count: usize) -> usize {
        let bytes = count * size_of::<T>();
        let wanted = if self.crowded { bytes } else { bytes / 4 };
        wanted.clamp(SMALLEST_PIECE, SLOT) / size_of::<T>() / GRAIN * GRAIN
    }

    /// Copies to our slot what peers reduce: all of the piece but our own share.
    ///
    /// # Safety
    /// The piece must be readable at `source`, and no peer may read the slot of this turn.
    unsafe fn contribute<T: Element>(&self, source: *mut T, piece: Range<usize>, turn: usize) {
        let own = share(piece.len(), self.rank, self.world_size());
        let slot = self.arena.slot(self.rank, turn).cast::<T>();
        for part in [0..own.start, own.end..piece.len()] {
            // SAFETY: the parts lie within the piece, which fits the slot.
            unsafe { copy_in(source.add(piece.start + part.start), part.len(), slot.add(part.start).cast()) };
        }
    }

    /// Reduces our share of a piece, into a slot for the others and to its place if wanted.
    ///
    /// # Safety
    /// All ranks must have contributed to this turn, and no peer may read our result slot of it.
    unsafe fn reduce_share<T: Element>(
        &self,
        source: *mut T,
        wanted: Option<*mut T>,
        piece: Range<usize>,
        turn: usize,
        reduction: Reduction,
    ) {
        let own = share(piece.len(), self.rank, self.world_size());
        let at = piece.start + own.start;
        let mut sources: Places<T> = (0..self.world_size())
            .map(|peer| self.arena.slot(peer, turn).cast::<T>().wrapping_add(own.start).cast_const())
            .collect();
        sources[self.rank] = source.wrapping_add(at);
        let result = self.arena.result_slot(self.rank, turn).cast::<T>().wrapping_add(own.start);
        let mut destinations: SmallVec<[*mut T; 2]> = SmallVec::new();
        destinations.push(result);
        destinations.extend(wanted.map(|wanted| wanted.wrapping_add(at)));
        // SAFETY: the caller's promise; the share lies within the piece, which fits the slots.
        unsafe { kernels::reduce(reduction, &sources, &destinations, own.len()) };
    }

    /// Copies what the others reduced to its place.
    ///
    /// # Safety
    /// All ranks must have reduced their share of this turn, and the piece must be writable at `wanted`.
    unsafe fn collect_shares<T: Element>(&self, wanted: *mut T, piece: Range<usize>, turn: usize) {
        for peer in (0..self.world_size()).filter(|peer| *peer != self.rank) {
            let share = share(piece.len(), peer, self.world_size());
            let result = self.arena.result_slot(peer, turn).cast::<T>().wrapping_add(share.start);
            // SAFETY: the caller's promise.
            unsafe { copy_out(result.cast(), wanted.add(piece.start + share.start), share.len()) };
        }
    }
}

/// The elements of `count` that `rank` reduces.
pub(crate) fn share(count: usize, rank: usize, world_size: usize) -> Range<usize> {
    let length = count.div_ceil(world_size).next_multiple_of(GRAIN);
    (rank * length).min(count)..((rank + 1) * length).min(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_everything_once() {
        for world_size in 1..=9 {
            for count in [0, 1, 63, 64, 65, 1000, 4097] {
                let mut next = 0;
                for rank in 0..world_size {
                    let share = share(count, rank, world_size);
                    assert_eq!(share.start, next.min(count));
                    next = share.end.max(next);
                }
                assert_eq!(next, count);
            }
        }
    }
}
