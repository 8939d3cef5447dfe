//! The shared-memory transport: how ranks move in step, and the collectives' phases on top.

#![allow(unsafe_code)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::arena::{Arena, RegisteredBuffer, SLOT, segment_length};
use crate::call::Call;
use crate::control::{self, Control, Failure};
use crate::element::{Element, Reduction};
use crate::error::{Error, LossCause};
use crate::kernels;
use crate::memory::{self, Mapping};
use crate::options::Options;
use crate::rendezvous;
use crate::watcher::Watcher;

/// Longest sleep between two looks at the abort word.
const NAP: Duration = Duration::from_millis(20);

/// Staged reductions up to this many bytes are computed whole by every rank: one step instead of two.
const SYMMETRIC_LIMIT: usize = 64 << 10;

/// Slices of a reduction are cut at multiples of this many elements, so ranks do not share cache lines.
const GRAIN: usize = 64;

/// A joined group.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    rank: usize,
    hosts: Vec<String>,
    deadline: Duration,
    control: Arc<Control>,
    arena: Arc<Arena>,
    /// Steps this rank has completed or begun; equal on all ranks when they meet.
    sequence: u32,
    /// Staging slots used so far.
    turn: usize,
    /// Rounds of spinning before yielding the processor.
    spins: u32,
    /// Dropped before the lifeline, so that leaving is not mistaken for dying.
    _watcher: Option<Watcher>,
    _lifeline: std::os::fd::OwnedFd,
}

impl SharedMemory {
    pub(crate) fn join(options: &Options) -> Result<Self, Error> {
        let group = rendezvous::form(options)?;
        let mut hosts = Vec::new();
        let mut segments = Vec::new();
        let mut lifelines = Vec::new();
        for (rank, peer) in group.peers.into_iter().enumerate() {
            let length = segment_length(peer.arena_bytes);
            memory::verify_file(&peer.segment, length)
                .map_err(Error::system("verify the memory of a peer"))?;
            segments.push(
                Mapping::new(&peer.segment, length).map_err(Error::system("map the memory of a peer"))?,
            );
            hosts.push(peer.host);
            if rank != options.rank {
                lifelines.push((rank, peer.lifeline));
            }
        }
        let length = control::length(options.world_size);
        memory::verify_file(&group.control, length).map_err(Error::system("verify the control segment"))?;
        let mapping =
            Mapping::new(&group.control, length).map_err(Error::system("map the control segment"))?;
        let control = Arc::new(Control::new(mapping, options.world_size));
        if options.rank == 0 {
            control.set_session(group.session);
        }
        let watcher = if lifelines.is_empty() {
            None
        } else {
            let watcher = Watcher::start(Arc::clone(&control), lifelines);
            Some(watcher.map_err(Error::system("start the thread that watches the peers"))?)
        };
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            rank: options.rank,
            hosts,
            deadline: options.deadline,
            arena: Arc::new(Arena::new(options.rank, segments, options.arena_bytes)),
            control,
            sequence: 0,
            turn: 0,
            spins: if options.world_size <= processors { 2000 } else { 50 },
            _watcher: watcher,
            _lifeline: group.lifeline,
        })
    }

    pub(crate) fn rank(&self) -> usize {
        self.rank
    }

    pub(crate) fn world_size(&self) -> usize {
        self.hosts.len()
    }

    pub(crate) fn hosts(&self) -> &[String] {
        &self.hosts
    }

    pub(crate) fn session(&self) -> u64 {
        self.control.session()
    }

    pub(crate) fn allocate<T: Element>(&self, count: usize) -> Result<RegisteredBuffer<T>, Error> {
        self.arena.allocate(count)
    }

    pub(crate) fn barrier(&mut self, call: Call) -> Result<(), Error> {
        self.enter(call, 0)
    }

    /// Reduces a registered buffer in place: each rank reduces one slice of all buffers and stores it to all.
    pub(crate) fn all_reduce_registered<T: Element>(
        &mut self,
        call: Call,
        buffer: &mut RegisteredBuffer<T>,
        reduction: Reduction,
    ) -> Result<(), Error> {
        if !buffer.belongs_to(&self.arena) {
            return Err(Error::InvalidArgument("the buffer was allocated by another communicator".into()));
        }
        let result = self.reduce_registered(call, buffer, reduction);
        if result.is_err() {
            buffer.detach()?;
        }
        result
    }

    fn reduce_registered<T: Element>(
        &mut self,
        call: Call,
        buffer: &RegisteredBuffer<T>,
        reduction: Reduction,
    ) -> Result<(), Error> {
        self.enter(call, buffer.offset())?;
        let slice = share(call.count, self.rank, self.world_size());
        let slot = (call.index & 1) as usize;
        let places: Vec<*mut T> = (0..self.world_size())
            .map(|rank| {
                let (_, offset) = self.control.announced(rank, slot);
                self.arena.address(rank, offset + slice.start * size_of::<T>()).cast()
            })
            .collect();
        let sources: Vec<*const T> = places.iter().map(|place| place.cast_const()).collect();
        // SAFETY: every rank announced a buffer of `count` elements of `T` and is inside this call; this slice of
        // all of them is ours until the next step. A place is its own source.
        unsafe { kernels::reduce(reduction, &sources, &places, slice.len()) };
        self.step(call)
    }

    /// Reduces private memory through the staging slots.
    pub(crate) fn all_reduce_staged<T: Element>(
        &mut self,
        call: Call,
        data: &mut [T],
        reduction: Reduction,
    ) -> Result<(), Error> {
        let symmetric = size_of_val(data) <= SYMMETRIC_LIMIT;
        self.in_pieces(call, data.len(), SLOT / size_of::<T>(), |group, piece, first| {
            let data = &mut data[piece];
            let (rank, world_size, count) = (group.rank, group.world_size(), data.len());
            // SAFETY: a piece fits a slot, and no peer reads this slot before the step below.
            unsafe { copy_in(data, group.arena.slot(rank, group.turn)) };
            group.meet(call, first)?;
            let own = if symmetric { 0..count } else { share(count, rank, world_size) };
            let sources: Vec<*const T> = (0..world_size)
                .map(|peer| {
                    group.arena.slot(peer, group.turn).cast::<T>().wrapping_add(own.start).cast_const()
                })
                .collect();
            // SAFETY: all slots were filled before the step. The result goes to our own memory and, when peers
            // will fetch it, to our slice of our own slot, which no other rank reads before the next step.
            unsafe {
                kernels::reduce(reduction, &sources, &[data[own.clone()].as_mut_ptr()], own.len());
                if !symmetric {
                    copy_in(
                        &data[own.clone()],
                        group.arena.slot(rank, group.turn).cast::<T>().wrapping_add(own.start).cast(),
                    );
                }
            }
            if !symmetric {
                group.step(call)?;
                for peer in (0..world_size).filter(|peer| *peer != rank) {
                    let slice = share(count, peer, world_size);
                    let source = group.arena.slot(peer, group.turn).cast::<T>().wrapping_add(slice.start);
                    // SAFETY: the peer finished its slice before the step.
                    unsafe { copy_out(source.cast(), &mut data[slice]) };
                }
            }
            Ok(())
        })
    }

    pub(crate) fn broadcast<T: Element>(
        &mut self,
        call: Call,
        data: &mut [T],
        root: usize,
    ) -> Result<(), Error> {
        self.in_pieces(call, data.len(), SLOT / size_of::<T>(), |group, piece, first| {
            let slot = group.arena.slot(root, group.turn);
            if group.rank == root {
                // SAFETY: a piece fits a slot, and no peer reads this slot before the step below.
                unsafe { copy_in(&data[piece], slot) };
                group.meet(call, first)
            } else {
                group.meet(call, first)?;
                // SAFETY: the root filled its slot before the step.
                unsafe { copy_out(slot, &mut data[piece]) };
                Ok(())
            }
        })
    }

    pub(crate) fn all_gather<T: Element>(
        &mut self,
        call: Call,
        send: &[T],
        receive: &mut [T],
    ) -> Result<(), Error> {
        self.in_pieces(call, send.len(), SLOT / size_of::<T>(), |group, piece, first| {
            // SAFETY: a piece fits a slot, and no peer reads this slot before the step below.
            unsafe { copy_in(&send[piece.clone()], group.arena.slot(group.rank, group.turn)) };
            group.meet(call, first)?;
            for peer in 0..group.world_size() {
                let place = peer * send.len() + piece.start..peer * send.len() + piece.end;
                // SAFETY: the peer filled its slot before the step.
                unsafe { copy_out(group.arena.slot(peer, group.turn), &mut receive[place]) };
            }
            Ok(())
        })
    }

    pub(crate) fn reduce_scatter<T: Element>(
        &mut self,
        call: Call,
        send: &[T],
        receive: &mut [T],
        reduction: Reduction,
    ) -> Result<(), Error> {
        let world_size = self.world_size();
        let largest = SLOT / size_of::<T>() / world_size;
        let part = receive.len();
        self.in_pieces(call, part, largest, |group, piece, first| {
            for peer in 0..world_size {
                let data = &send[peer * part + piece.start..peer * part + piece.end];
                let place = group.arena.slot(group.rank, group.turn).cast::<T>().wrapping_add(peer * largest);
                // SAFETY: the pieces of all ranks fit a slot, and no peer reads it before the step below.
                unsafe { copy_in(data, place.cast()) };
            }
            group.meet(call, first)?;
            let own = group.rank * largest;
            let sources: Vec<*const T> = (0..world_size)
                .map(|peer| group.arena.slot(peer, group.turn).cast::<T>().wrapping_add(own).cast_const())
                .collect();
            // SAFETY: all slots were filled before the step, and the result goes to our own memory.
            unsafe {
                kernels::reduce(reduction, &sources, &[receive[piece.clone()].as_mut_ptr()], piece.len());
            };
            Ok(())
        })
    }

    /// Runs `work` for pieces of at most `largest` of `count` elements (once for none), each in its own turn of
    /// the staging slots.
    ///
    /// Two slots suffice: a rank fills a slot again two turns later, after a step of the turn between, which
    /// every peer reaches only when done with the slot.
    fn in_pieces(
        &mut self,
        call: Call,
        count: usize,
        largest: usize,
        mut work: impl FnMut(&mut Self, std::ops::Range<usize>, bool) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // Peers may still read the slots of the call that failed.
        if let Some(failure) = self.control.failure() {
            return Err(self.error(failure, call));
        }
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

    fn meet(&mut self, call: Call, first: bool) -> Result<(), Error> {
        if first { self.enter(call, 0) } else { self.step(call) }
    }

    /// Announces the call, waits for all ranks and checks that they make the same one.
    fn enter(&mut self, call: Call, offset: usize) -> Result<(), Error> {
        // A failed group keeps the announcements that explain its failure.
        if let Some(failure) = self.control.failure() {
            return Err(self.error(failure, call));
        }
        let slot = (call.index & 1) as usize;
        let words = call.to_words();
        self.control.announce(self.rank, slot, words, offset);
        self.step(call)?;
        for peer in (0..self.world_size()).filter(|peer| *peer != self.rank) {
            if self.control.announced(peer, slot).0 != words {
                let (rank, other) = (self.rank.min(peer), self.rank.max(peer));
                let failure = self.control.abort(Failure::Mismatch { rank, other, slot });
                return Err(self.error(failure, call));
            }
        }
        Ok(())
    }

    /// Waits until every rank has come this far; what they wrote before is then visible.
    fn step(&mut self, call: Call) -> Result<(), Error> {
        if let Some(failure) = self.control.failure() {
            return Err(self.error(failure, call));
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.control.advance(self.rank, self.sequence);
        let mut since = None;
        for peer in (0..self.world_size()).filter(|peer| *peer != self.rank) {
            self.await_peer(peer, call, &mut since)?;
        }
        Ok(())
    }

    fn await_peer(&self, peer: usize, call: Call, since: &mut Option<Instant>) -> Result<(), Error> {
        let reached = || self.control.has_reached(peer, self.sequence);
        for _ in 0..self.spins {
            if reached() {
                return Ok(());
            }
            std::hint::spin_loop();
        }
        let since = *since.get_or_insert_with(Instant::now);
        let mut yields = 0;
        loop {
            // In this order: a rank that leaves has advanced before.
            let departed = self.control.has_departed(peer);
            if reached() {
                return Ok(());
            }
            if departed {
                let failure = self.control.abort(Failure::Left { rank: peer });
                return Err(self.error(failure, call));
            }
            if let Some(failure) = self.control.failure() {
                return Err(self.error(failure, call));
            }
            if yields < 16 {
                yields += 1;
                std::thread::yield_now();
                continue;
            }
            let Some(remaining) = self.deadline.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
            else {
                let failure = self.control.abort(Failure::TimedOut { rank: peer });
                return Err(self.error(failure, call));
            };
            self.control.sleep_until_reached(peer, self.sequence, remaining.min(NAP));
        }
    }

    fn error(&self, failure: Failure, call: Call) -> Error {
        let lost = |rank: usize, cause| Error::PeerLost { rank, host: self.hosts[rank].clone(), cause };
        match failure {
            Failure::Died { rank } => lost(rank, LossCause::Died),
            Failure::Left { rank } => lost(rank, LossCause::Left),
            Failure::TimedOut { rank } => {
                let mut waiting_for: Vec<usize> = (0..self.world_size())
                    .filter(|peer| *peer == rank || !self.control.has_reached(*peer, self.sequence))
                    .collect();
                if waiting_for.contains(&self.rank) {
                    waiting_for = vec![rank];
                }
                Error::Timeout { waiting_for, call, after: self.deadline }
            }
            Failure::Mismatch { rank, other, slot } => {
                let announced = |rank| self.control.announced_call(rank, slot).unwrap_or(call);
                Error::Mismatch {
                    rank,
                    call: announced(rank),
                    other_rank: other,
                    other_call: announced(other),
                }
            }
        }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        self.control.mark_departed(self.rank);
    }
}

/// The elements of `count` that `rank` reduces.
fn share(count: usize, rank: usize, world_size: usize) -> std::ops::Range<usize> {
    let length = count.div_ceil(world_size).next_multiple_of(GRAIN);
    (rank * length).min(count)..((rank + 1) * length).min(count)
}

/// # Safety
/// `place` must be writable for the bytes of `data` and untouched by others meanwhile.
unsafe fn copy_in<T: Element>(data: &[T], place: *mut u8) {
    // SAFETY: the caller's promise; private memory does not overlap the arena.
    unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), place.cast(), data.len()) };
}

/// # Safety
/// `place` must hold the bytes of `data.len()` elements, not written to by others meanwhile.
unsafe fn copy_out<T: Element>(place: *mut u8, data: &mut [T]) {
    // SAFETY: the caller's promise; private memory does not overlap the arena.
    unsafe { std::ptr::copy_nonoverlapping(place.cast(), data.as_mut_ptr(), data.len()) };
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
