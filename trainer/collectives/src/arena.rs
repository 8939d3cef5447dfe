//! The arena: one segment of shared memory for each rank, mapped by all of them.
//!
//! A segment begins with two staging slots for data that lives elsewhere; the rest holds registered buffers,
//! which collectives reduce where they lie.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use crate::element::{Element, Reduction};
use crate::error::Error;
use crate::kernels;
use crate::memory::{Mapping, PAGE};

/// Bytes of one staging slot.
pub(crate) const SLOT: usize = 256 << 10;

/// Bytes of a segment in front of the registered buffers.
const STAGING: usize = 2 * SLOT;

/// Bytes of a segment that offers `capacity` bytes to registered buffers.
pub(crate) const fn segment_length(capacity: usize) -> usize {
    STAGING + capacity.next_multiple_of(PAGE)
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
        Self { rank, segments, capacity, free: Mutex::new(vec![Range { start: STAGING, length: capacity }]) }
    }

    /// Address of `offset` in a rank's segment.
    pub(crate) fn address(&self, rank: usize, offset: usize) -> *mut u8 {
        self.segments[rank].at(offset)
    }

    /// Address of a rank's staging slot for the given turn.
    pub(crate) fn slot(&self, rank: usize, turn: usize) -> *mut u8 {
        self.segments[rank].at((turn & 1) * SLOT)
    }

    pub(crate) fn allocate<T: Element>(self: &Arc<Self>, count: usize) -> Result<RegisteredBuffer<T>, Error> {
        let bytes = count
            .checked_mul(size_of::<T>())
            .and_then(|bytes| bytes.checked_next_multiple_of(PAGE))
            .ok_or_else(|| {
                Error::InvalidArgument(format!("a buffer of {count} elements exceeds the address space"))
            })?;
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = free.iter().position(|range| range.length >= bytes) else {
            let available = free.iter().map(|range| range.length).sum();
            return Err(Error::ArenaFull { wanted: bytes, free: available, capacity: self.capacity });
        };
        let start = free[place].start;
        free[place] = Range { start: start + bytes, length: free[place].length - bytes };
        drop(free);
        self.segments[self.rank].populate(start, bytes);
        // SAFETY: the range was just taken from the free list, so nothing else refers to it.
        unsafe { std::ptr::write_bytes(self.address(self.rank, start), 0, bytes) };
        Ok(RegisteredBuffer { arena: Arc::clone(self), offset: start, count, element: PhantomData })
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

/// Elements in shared memory that collectives reduce in place, without a copy. Reads and writes as a slice
/// between collectives; begins as zeros.
#[derive(Debug)]
pub struct RegisteredBuffer<T: Element> {
    arena: Arc<Arena>,
    offset: usize,
    count: usize,
    element: PhantomData<T>,
}

impl<T: Element> RegisteredBuffer<T> {
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) fn belongs_to(&self, arena: &Arc<Arena>) -> bool {
        Arc::ptr_eq(&self.arena, arena)
    }

    /// Reads and writes every byte once, at the speed at which a reduction would.
    pub(crate) fn touch(&mut self) {
        let (start, count) = (self.as_mut_ptr(), self.count);
        // SAFETY: the range is this buffer's own; a place is its own source.
        unsafe { kernels::reduce(Reduction::Sum, &[start.cast_const()], &[start], count) };
    }

    fn length_in_pages(&self) -> usize {
        (self.count * size_of::<T>()).next_multiple_of(PAGE)
    }

    /// Cuts the buffer off from the peers, some of which may still be writing to it after a failed collective.
    pub(crate) fn detach(&mut self) -> Result<(), Error> {
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
        let length = segment_length(capacity);
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
