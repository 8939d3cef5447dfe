//! The arena: one segment of shared memory for each rank, mapped by all of them.
//!
//! A segment begins with staging slots for data that lives elsewhere and a channel to each rank for messages; the
//! rest holds registered buffers, which collectives reduce where they lie.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use crate::channel::{CHANNEL, Channel};
use crate::element::{Element, Reduction};
use crate::error::Error;
use crate::kernels;
use crate::memory::{LARGE_PAGE, Mapping, PAGE};

/// Bytes of one staging slot: few steps for large data, and still within a processor's second-level cache.
pub(crate) const SLOT: usize = 1 << 20;

/// Two slots for what a rank contributes and two for what it has reduced.
const STAGING: usize = 4 * SLOT;

/// Where the channels begin.
const CHANNELS: usize = STAGING;

/// Bytes of a segment in front of the registered buffers.
const fn front(world_size: usize) -> usize {
    (CHANNELS + world_size * CHANNEL).next_multiple_of(LARGE_PAGE)
}

/// Bytes of a segment that offers `capacity` bytes to registered buffers in a world of this size.
pub(crate) const fn segment_length(capacity: usize, world_size: usize) -> usize {
    front(world_size) + capacity.next_multiple_of(PAGE)
}

/// The mapped segments of all ranks and the free list of this rank's own.
#[derive(Debug)]
pub(crate) struct Arena {
    rank: usize,
    segments: Vec<Mapping>,
    capacity: usize,
    free: Mutex<Vec<Range>>,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    start: usize,
    length: usize,
}

impl Arena {
    pub(crate) fn new(rank: usize, segments: Vec<Mapping>, capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(PAGE);
        segments[rank].populate(0, STAGING);
        let start = front(segments.len());
        Self { rank, segments, capacity, free: Mutex::new(vec![Range { start, length: capacity }]) }
    }

    /// Address of `offset` in a rank's segment.
    pub(crate) fn address(&self, rank: usize, offset: usize) -> *mut u8 {
        self.segments[rank].at(offset)
    }

    /// Address of a rank's staging slot for the given turn.
    pub(crate) fn slot(&self, rank: usize, turn: usize) -> *mut u8 {
        self.segments[rank].at((turn & 1) * SLOT)
    }

    /// Address of the slot for what a rank has reduced in the given turn.
    pub(crate) fn result_slot(&self, rank: usize, turn: usize) -> *mut u8 {
        self.segments[rank].at((2 + (turn & 1)) * SLOT)
    }

    /// The channel for messages from one rank to another; it lies in the sender's segment.
    pub(crate) fn channel(&self, from: usize, to: usize) -> Channel<'_> {
        Channel::new(&self.segments[from], CHANNELS + to * CHANNEL)
    }

    pub(crate) fn allocate<T: Element>(self: &Arc<Self>, count: usize) -> Result<RegisteredBuffer<T>, Error> {
        let bytes = count
            .checked_mul(size_of::<T>())
            .and_then(|bytes| bytes.checked_next_multiple_of(PAGE))
            .ok_or_else(|| {
                Error::InvalidArgument(format!("a buffer of {count} elements exceeds the address space"))
            })?;
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(start) = take(&mut free, bytes) else {
            let available = free.iter().map(|range| range.length).sum();
            return Err(Error::ArenaFull { wanted: bytes, free: available, capacity: self.capacity });
        };
        drop(free);
        self.segments[self.rank].populate(start, bytes);
        // SAFETY: the range was just taken from the free list, so nothing else refers to it.
        unsafe { std::ptr::write_bytes(self.address(self.rank, start), 0, bytes) };
        let arena = Arc::clone(self);
        Ok(RegisteredBuffer { arena, offset: start, count, capacity: count, element: PhantomData })
    }

    fn release(&self, offset: usize, length: usize) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(Range { start: offset, length });
        free.retain(|range| range.length > 0);
        free.sort_unstable_by_key(|range| range.start);
        free.dedup_by(|next, previous| {
            let adjacent = previous.start + previous.length == next.start;
            if adjacent {
                previous.length += next.length;
            }
            adjacent
        });
    }
}

/// Takes a range out of the free ones: at a large page where a large buffer can have it, else the first that fits.
fn take(free: &mut Vec<Range>, length: usize) -> Option<usize> {
    let aligned = |range: &Range| range.start.next_multiple_of(LARGE_PAGE) - range.start;
    let fits_aligned = |range: &Range| length >= LARGE_PAGE && range.length >= aligned(range) + length;
    let (place, skipped) = match free.iter().position(fits_aligned) {
        Some(place) => (place, aligned(&free[place])),
        None => (free.iter().position(|range| range.length >= length)?, 0),
    };
    let Range { start, length: whole } = free[place];
    let rest = Range { start: start + skipped + length, length: whole - skipped - length };
    free[place] = rest;
    if skipped > 0 {
        free.insert(place, Range { start, length: skipped });
    }
    Some(start + skipped)
}

/// Elements in shared memory that collectives reduce in place, without a copy. Reads and writes as a slice
/// between collectives; begins as zeros.
#[derive(Debug)]
pub struct RegisteredBuffer<T: Element> {
    arena: Arc<Arena>,
    offset: usize,
    count: usize,
    capacity: usize,
    element: PhantomData<T>,
}

impl<T: Element> RegisteredBuffer<T> {
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) fn belongs_to(&self, arena: &Arc<Arena>) -> bool {
        Arc::ptr_eq(&self.arena, arena)
    }

    /// Elements that the buffer can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Uses only the first `count` elements from now on, at most as many as were allocated. All ranks must do the same
    /// before the next collective. Values stay.
    pub fn resize(&mut self, count: usize) -> Result<(), Error> {
        if count > self.capacity {
            let message = format!("a buffer of {} elements cannot hold {count}", self.capacity);
            return Err(Error::InvalidArgument(message));
        }
        self.count = count;
        Ok(())
    }

    /// Reads and writes every byte once, at the speed at which a reduction would.
    pub(crate) fn touch(&mut self) {
        let (start, count) = (self.as_mut_ptr(), self.count);
        // SAFETY: the range is this buffer's own; a place is its own source.
        unsafe { kernels::reduce(Reduction::Sum, &[start.cast_const()], &[start], count) };
    }

    fn length_in_pages(&self) -> usize {
        (self.capacity * size_of::<T>()).next_multiple_of(PAGE)
    }

    /// What a call on the buffer came to; after a failure the buffer is [detached](Self::detach).
    pub(crate) fn detached_if_failed(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        if result.is_err() {
            self.detach()?;
        }
        result
    }

    /// Cuts the buffer off from the peers, some of which may still be writing to it after a failed collective.
    fn detach(&mut self) -> Result<(), Error> {
        self.arena.segments[self.arena.rank]
            .detach(self.offset, self.length_in_pages())
            .map_err(Error::system("detach a buffer from a failed group"))
    }
}

impl<T: Element> Deref for RegisteredBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the range belongs to this buffer alone and is page-aligned. Peers touch it only inside a
        // collective, which holds `&mut self`, and after a failed one it is detached from them.
        unsafe {
            std::slice::from_raw_parts(self.arena.address(self.arena.rank, self.offset).cast(), self.count)
        }
    }
}

impl<T: Element> DerefMut for RegisteredBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.arena.address(self.arena.rank, self.offset).cast(),
                self.count,
            )
        }
    }
}

impl<T: Element> Drop for RegisteredBuffer<T> {
    fn drop(&mut self) {
        self.arena.release(self.offset, self.length_in_pages());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::create_file;

    fn arena(capacity: usize) -> Arc<Arena> {
        let length = segment_length(capacity, 1);
        let segment = Mapping::new(create_file("test", length).unwrap(), length).unwrap();
        Arc::new(Arena::new(0, vec![segment], capacity))
    }

    #[test]
    fn freed_buffers_merge_and_are_handed_out_as_zeros() {
        let arena = arena(3 * PAGE);
        let mut first = arena.allocate::<f32>(1000).unwrap();
        let second = arena.allocate::<f64>(513).unwrap();
        assert_ne!(first.offset(), second.offset());
        assert!(matches!(
            arena.allocate::<i32>(1),
            Err(Error::ArenaFull { wanted: PAGE, free: 0, capacity }) if capacity == 3 * PAGE
        ));
        first.fill(7.0);
        drop(first);
        drop(second);
        let whole = arena.allocate::<f32>(3 * PAGE / 4).unwrap();
        assert!(whole.iter().all(|value| *value == 0.0));
    }

    #[test]
    fn large_buffers_begin_at_large_pages_while_there_is_room() {
        let mut free = vec![Range { start: LARGE_PAGE + PAGE, length: 3 * LARGE_PAGE }];
        assert_eq!(take(&mut free, LARGE_PAGE), Some(2 * LARGE_PAGE));
        assert_eq!(take(&mut free, PAGE), Some(LARGE_PAGE + PAGE));
        assert_eq!(take(&mut free, LARGE_PAGE + PAGE), Some(3 * LARGE_PAGE));
        assert_eq!(take(&mut free, LARGE_PAGE), None);
        assert_eq!(take(&mut free, LARGE_PAGE - 2 * PAGE), Some(LARGE_PAGE + 2 * PAGE));
        assert!(free.iter().all(|range| range.length == 0));
    }

    #[test]
    fn a_shortened_buffer_keeps_its_room() {
        let arena = arena(2 * PAGE);
        let mut buffer = arena.allocate::<u8>(2 * PAGE).unwrap();
        buffer[PAGE] = 7;
        buffer.resize(3).unwrap();
        assert_eq!((buffer.len(), buffer.capacity()), (3, 2 * PAGE));
        assert!(arena.allocate::<u8>(1).is_err());
        assert!(buffer.resize(2 * PAGE + 1).unwrap_err().to_string().contains("cannot hold 8193"));
        buffer.resize(2 * PAGE).unwrap();
        assert_eq!(buffer[PAGE], 7);
        drop(buffer);
        assert_eq!(arena.allocate::<u8>(2 * PAGE).unwrap().len(), 2 * PAGE);
    }

    #[test]
    fn an_empty_buffer_takes_no_room() {
        let arena = arena(PAGE);
        let empty = arena.allocate::<f32>(0).unwrap();
        assert!(empty.is_empty());
        assert!(arena.allocate::<f32>(1024).is_ok());
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        assert!(matches!(arena(PAGE).allocate::<f64>(usize::MAX / 4), Err(Error::InvalidArgument(_))));
    }
}
