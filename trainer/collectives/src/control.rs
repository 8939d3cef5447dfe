//! The control segment: the few words through which the ranks of one host agree.
//!
//! Every rank has a block of its own that it alone advances; the abort word is written once, by whoever sees the
//! first failure, and from then on every wait of the group ends.

#![allow(unsafe_code)]

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::thread::futex;

use crate::call::{Call, Words};
use crate::memory::{Mapping, PAGE, Shared};

/// Most ranks a communicator can hold on one host.
pub(crate) const MAXIMUM_RANKS: usize = 256;

const BLOCK_BYTES: usize = 512;

/// Bytes of the control segment for a world of this size.
pub(crate) const fn length(world_size: usize) -> usize {
    (PAGE + world_size * BLOCK_BYTES).next_multiple_of(PAGE)
}

/// First page of the segment.
#[repr(C, align(128))]
struct Head {
    session: AtomicU64,
    _padding: [u64; 15],
    abort: AtomicU64,
}

// SAFETY: atomics only; the padding is never read.
unsafe impl Shared for Head {}

/// One rank's block. The sequence number has a cache line pair of its own: peers spin on it.
#[repr(C, align(128))]
struct Block {
    sequence: AtomicU32,
    sleepers: AtomicU32,
    _padding: [u64; 15],
    departed: AtomicU32,
    _padding_departed: [u32; 31],
    announcements: [Announcement; 2],
}

// SAFETY: atomics only; the padding is never read.
unsafe impl Shared for Block {}

#[repr(C)]
struct Announcement {
    words: [AtomicU64; 4],
    offset: AtomicU64,
}

/// Why a group stopped working; packed into the abort word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The rank's process ended without leaving the group.
    Died { rank: usize },
    /// The rank left the group while others still needed it.
    Left { rank: usize },
    /// The rank did not arrive in time.
    TimedOut { rank: usize },
    /// Two ranks announced different calls in this slot.
    Mismatch { rank: usize, other: usize, slot: usize },
}

impl Failure {
    fn pack(self) -> u64 {
        let (kind, first, second, slot) = match self {
            Self::Died { rank } => (1, rank, 0, 0),
            Self::Left { rank } => (2, rank, 0, 0),
            Self::TimedOut { rank } => (3, rank, 0, 0),
            Self::Mismatch { rank, other, slot } => (4, rank, other, slot),
        };
        kind | (first as u64) << 8 | (second as u64) << 24 | (slot as u64) << 40
    }

    fn unpack(word: u64) -> Option<Self> {
        let rank = (word >> 8 & 0xffff) as usize;
        match word & 0xff {
            0 => None,
            1 => Some(Self::Died { rank }),
            2 => Some(Self::Left { rank }),
            3 => Some(Self::TimedOut { rank }),
            _ => {
                let (other, slot) = ((word >> 24 & 0xffff) as usize, (word >> 40 & 1) as usize);
                Some(Self::Mismatch { rank, other, slot })
            }
        }
    }
}

/// The mapped control segment.
#[derive(Debug)]
pub(crate) struct Control {
    mapping: Mapping,
    world_size: usize,
}

impl Control {
    pub(crate) fn new(mapping: Mapping, world_size: usize) -> Self {
        Self { mapping, world_size }
    }

    fn head(&self) -> &Head {
        self.mapping.view(0)
    }

    fn block(&self, rank: usize) -> &Block {
        debug_assert!(rank < self.world_size);
        self.mapping.view(PAGE + rank * BLOCK_BYTES)
    }

    pub(crate) fn set_session(&self, session: u64) {
        self.head().session.store(session, Release);
    }

    pub(crate) fn session(&self) -> u64 {
        self.head().session.load(Acquire)
    }

    /// Publishes that `rank` reached `sequence`, and everything it wrote before.
    pub(crate) fn advance(&self, rank: usize, sequence: u32) {
        let block = self.block(rank);
        // Both sides use sequentially consistent accesses: either the sleeper sees the new number, or we see it.
        block.sequence.store(sequence, SeqCst);
        if block.sleepers.load(SeqCst) != 0 {
            wake_all(&block.sequence);
        }
    }

    /// Whether `rank` has reached `sequence`; if so, what it wrote before is visible.
    #[inline]
    pub(crate) fn has_reached(&self, rank: usize, sequence: u32) -> bool {
        reached(self.block(rank).sequence.load(Acquire), sequence)
    }

    /// Sleeps until `rank` may have reached `sequence`, the group failed, or `longest` passed.
    pub(crate) fn sleep_until_reached(&self, rank: usize, sequence: u32, longest: std::time::Duration) {
        let block = self.block(rank);
        block.sleepers.fetch_add(1, SeqCst);
        let seen = block.sequence.load(SeqCst);
        if !reached(seen, sequence) && self.failure().is_none() {
            let timeout = futex::Timespec {
                tv_sec: longest.as_secs() as i64,
                tv_nsec: i64::from(longest.subsec_nanos()),
            };
            // Every outcome (woken, changed, interrupted, timed out) leads the caller to look again.
            let _ = futex::wait(&block.sequence, futex::Flags::empty(), seen, Some(&timeout));
        }
        block.sleepers.fetch_sub(1, SeqCst);
    }

    /// Announces the call that `rank` is about to enter, and where its buffer lies in its segment.
    pub(crate) fn announce(&self, rank: usize, slot: usize, words: Words, offset: usize) {
        let announcement = &self.block(rank).announcements[slot];
        for (place, word) in announcement.words.iter().zip(words) {
            place.store(word, Relaxed);
        }
        announcement.offset.store(offset as u64, Relaxed);
    }

    pub(crate) fn announced(&self, rank: usize, slot: usize) -> (Words, usize) {
        let announcement = &self.block(rank).announcements[slot];
        let words = std::array::from_fn(|i| announcement.words[i].load(Relaxed));
        (words, announcement.offset.load(Relaxed) as usize)
    }

    pub(crate) fn announced_call(&self, rank: usize, slot: usize) -> Option<Call> {
        Call::from_words(self.announced(rank, slot).0)
    }

    pub(crate) fn mark_departed(&self, rank: usize) {
        self.block(rank).departed.store(1, SeqCst);
        self.wake_everyone();
    }

    pub(crate) fn has_departed(&self, rank: usize) -> bool {
        self.block(rank).departed.load(SeqCst) != 0
    }

    /// The failure that ended this group, if one did.
    pub(crate) fn failure(&self) -> Option<Failure> {
        Failure::unpack(self.head().abort.load(Acquire))
    }

    /// Ends the group with `failure` unless it already ended; gives the failure that counts.
    pub(crate) fn abort(&self, failure: Failure) -> Failure {
        let first = match self.head().abort.compare_exchange(0, failure.pack(), SeqCst, SeqCst) {
            Ok(_) => failure,
            Err(word) => Failure::unpack(word).unwrap_or(failure),
        };
        self.wake_everyone();
        first
    }

    fn wake_everyone(&self) {
        for rank in 0..self.world_size {
            wake_all(&self.block(rank).sequence);
        }
    }
}

fn wake_all(word: &AtomicU32) {
    // Waking cannot fail on a mapped, aligned word.
    let _ = futex::wake(word, futex::Flags::empty(), i32::MAX as u32);
}

/// Sequence numbers wrap; ranks are never 2^31 steps apart.
fn reached(current: u32, wanted: u32) -> bool {
    current.wrapping_sub(wanted).cast_signed() >= 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::create_file;

    fn control(world_size: usize) -> Control {
        let file = create_file("test", length(world_size)).unwrap();
        Control::new(Mapping::new(file, length(world_size)).unwrap(), world_size)
    }

    #[test]
    fn blocks_fit_their_stride() {
        assert!(size_of::<Block>() <= BLOCK_BYTES);
        assert!(size_of::<Head>() <= PAGE);
    }

    #[test]
    fn only_the_first_failure_counts() {
        let control = control(3);
        assert_eq!(control.failure(), None);
        let mismatch = Failure::Mismatch { rank: 2, other: 1, slot: 1 };
        assert_eq!(control.abort(mismatch), mismatch);
        assert_eq!(control.abort(Failure::Died { rank: 0 }), mismatch);
        assert_eq!(control.failure(), Some(mismatch));
    }

    #[test]
    fn sequence_numbers_compare_across_the_wrap() {
        assert!(reached(5, 5) && reached(6, 5) && !reached(4, 5));
        assert!(reached(2, u32::MAX - 1) && !reached(u32::MAX - 1, 2));
    }
}
