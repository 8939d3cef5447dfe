//! How the data of a call is cut into parts, one a rank, and how parts lie in a slot.

#![allow(unsafe_code)]

use std::ops::Range;

use smallvec::SmallVec;

use crate::arena::SLOT;
use crate::element::Element;

/// How many elements the part of each rank has; parts lie in rank order without gaps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counts<'a> {
    /// All the same.
    Even(usize),
    /// One number a rank.
    Each(&'a [usize]),
    /// Of the whole group, where the ranks asked for are those of one host: their ranks in the group stand beside.
    Members(&'a Counts<'a>, &'a [usize]),
}

impl Counts<'_> {
    pub(crate) fn of(self, rank: usize) -> usize {
        match self {
            Self::Even(count) => count,
            Self::Each(counts) => counts[rank],
            Self::Members(counts, members) => counts.of(members[rank]),
        }
    }

    pub(super) fn start(self, rank: usize) -> usize {
        match self {
            Self::Even(count) => rank * count,
            Self::Each(counts) => counts[..rank].iter().sum(),
            Self::Members(counts, members) => counts.start(members[rank]),
        }
    }

    /// The elements of `piece` of a rank's part, as far as the part goes.
    pub(crate) fn place(self, rank: usize, piece: &Range<usize>) -> Range<usize> {
        let (start, count) = (self.start(rank), self.of(rank));
        start + piece.start.min(count)..start + piece.end.min(count)
    }
}

/// A count in a table.
type Word = [u8; size_of::<usize>()];

/// How a slot holds a part for each rank: tables of counts, then the parts at equal distances.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    world_size: usize,
    /// Bytes in front of the parts.
    front: usize,
    /// Elements of a part.
    pub(crate) largest: usize,
}

impl Layout {
    pub(crate) fn new<T>(world_size: usize, tables: usize) -> Self {
        let front = (tables * world_size * size_of::<usize>()).next_multiple_of(64);
        let bytes = (SLOT - front) / world_size / 64 * 64;
        Self { world_size, front, largest: bytes / size_of::<T>() }
    }

    /// Address of the part of a rank.
    pub(crate) fn part<T>(self, slot: *mut u8, rank: usize) -> *mut u8 {
        slot.wrapping_add(self.front + rank * self.largest * size_of::<T>())
    }

    /// Writes how long the part of each rank is.
    ///
    /// # Safety
    /// `slot` must be a slot that no other rank touches.
    pub(super) unsafe fn write_table(self, slot: *mut u8, table: usize, count: impl Fn(usize) -> usize) {
        let start = slot.cast::<Word>().wrapping_add(table * self.world_size);
        for rank in 0..self.world_size {
            // SAFETY: the tables lie in front of the parts, and a slot is aligned to pages.
            unsafe { start.add(rank).write(count(rank).to_ne_bytes()) };
        }
    }

    /// # Safety
    /// `slot` must be a slot to which no rank writes.
    pub(super) unsafe fn read_table(self, slot: *mut u8, table: usize) -> SmallVec<[usize; 16]> {
        let start = slot.cast::<Word>().wrapping_add(table * self.world_size);
        // SAFETY: as for writing.
        (0..self.world_size).map(|rank| usize::from_ne_bytes(unsafe { start.add(rank).read() })).collect()
    }
}

/// # Safety
/// `data` must be readable and `place` writable for `count` elements, apart from each other.
pub(crate) unsafe fn copy_in<T: Element>(data: *const T, count: usize, place: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(data, place.cast(), count) };
}

/// # Safety
/// `place` must be readable and `data` writable for `count` elements, apart from each other.
pub(crate) unsafe fn copy_out<T: Element>(place: *mut u8, data: *mut T, count: usize) {
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(place.cast(), data, count) };
}
