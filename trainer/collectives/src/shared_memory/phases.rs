//! What all collectives go through: entering a call together, and pieces of data in turns of the slots.

use std::ops::Range;

use super::SharedMemory;
use crate::arena::RegisteredBuffer;
use crate::call::Call;
use crate::control::Failure;
use crate::element::Element;
use crate::error::Error;

impl SharedMemory {
    /// Runs `work` for pieces of at most `largest` of `count` elements (once for none), each in its own turn of
    /// the staging slots.
    ///
    /// Two slots suffice: a rank fills a slot again two turns later, after a step of the turn between, which
    /// every peer reaches only when done with the slot.
    pub(crate) fn in_pieces(
        &mut self,
        call: Call,
        count: usize,
        largest: usize,
        mut work: impl FnMut(&mut Self, Range<usize>, bool) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // Peers may still read the slots of the call that failed.
        self.check_failure(call)?;
        let mut start = 0;
        loop {
            let end = count.min(start + largest);
            work(self, start..end, start == 0)?;
            self.turn += 1;
            start = end;
            if start >= count {
                return Ok(());
            }
        }
    }

    pub(crate) fn meet(&mut self, call: Call, first: bool) -> Result<(), Error> {
        if first { self.enter(call, 0) } else { self.step(call) }
    }

    /// Announces the call, waits for all ranks and checks that they make the same one.
    pub(crate) fn enter(&mut self, call: Call, offset: usize) -> Result<(), Error> {
        // A failed group keeps the announcements that explain its failure.
        self.check_failure(call)?;
        let slot = (call.index & 1) as usize;
        let words = call.to_words();
        self.control.announce(self.rank, slot, words, offset);
        self.step(call)?;
        for peer in (0..self.world_size()).filter(|peer| *peer != self.rank) {
            if !call.fits(self.control.announced(peer, slot).0) {
                let (rank, other) = (self.rank.min(peer), self.rank.max(peer));
                return Err(self.fail(Failure::Mismatch { rank, other, slot }, call));
            }
        }
        Ok(())
    }

    /// Runs `work` on the registered buffers of all ranks, between a step in and a step out.
    pub(super) fn directly<T: Element>(
        &mut self,
        call: Call,
        buffer: &mut RegisteredBuffer<T>,
        work: impl FnOnce(&mut Self, &mut RegisteredBuffer<T>),
    ) -> Result<(), Error> {
        self.check_owner(buffer)?;
        let result = self.enter(call, buffer.offset()).and_then(|()| {
            work(self, buffer);
            self.step(call)
        });
        buffer.detached_if_failed(result)
    }

    /// The count that a rank announced for this call.
    pub(crate) fn announced_count(&self, rank: usize, call: Call) -> usize {
        let (words, _) = self.control.announced(rank, (call.index & 1) as usize);
        words[2] as usize
    }

    /// As [`Self::in_pieces`], where only `work` learns in the first piece how many elements there are.
    pub(crate) fn in_pieces_until(
        &mut self,
        call: Call,
        largest: usize,
        mut work: impl FnMut(&mut Self, Range<usize>, bool) -> Result<usize, Error>,
    ) -> Result<(), Error> {
        // Peers may still read the slots of the call that failed.
        self.check_failure(call)?;
        let mut start = 0;
        loop {
            let count = work(self, start..start + largest, start == 0)?;
            self.turn += 1;
            start += largest;
            if start >= count {
                return Ok(());
            }
        }
    }
}
