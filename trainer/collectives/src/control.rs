//! The control segment: the few words through which the ranks of one host agree.
//!
//! Every rank has a block of its own that it alone advances; the abort word is written once, by whoever sees the
//! first failure, and from then on every wait of the group ends.

#![allow(unsafe_code)]

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::call::{Call, Words};
use crate::memory::{Mapping, PAGE, Shared};
use crate::report::{REPORT_WORDS, Report, mask, ranks};
use crate::signal::Signal;

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
    /// One more than the rank whose proposal says who goes on after the failure.
    decision: AtomicU32,
}

// SAFETY: atomics only; the padding is never read.
unsafe impl Shared for Head {}

/// One rank's block. The step and the calls that it announces share a pair of cache lines: peers spin on the one and
/// then read the other.
#[repr(C, align(128))]
struct Block {
    step: Signal,
    /// Where it ran when it began the step.
    processor: AtomicU32,
    _unused: u32,
    announcements: [Announcement; 2],
    _padding: [u64; 4],
    /// It left the group.
    departed: AtomicU32,
    /// Its process ended.
    ended: AtomicU32,
    /// It knows of the failure and wants to go on with those who are left.
    goes_on: AtomicU32,
    /// Moves on while the rank exchanges data with other hosts, so that waiting for it here is not in vain.
    progress: AtomicU32,
    /// Whom it proposes to go on with, a bit a rank.
    proposal: [AtomicU64; MAXIMUM_RANKS / 64],
    /// Elements sent and expected, of the parts that do not fit.
    parts: [AtomicU64; 2],
    /// What it was told of a failure elsewhere.
    report: [AtomicU64; REPORT_WORDS],
    /// Where in its process others can try to read its memory.
    token: AtomicU64,
    /// Its process.
    process: AtomicU32,
    /// It can read the memory of all other ranks of the host.
    reads: AtomicU32,
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
    /// A rank sent another message than its receiver expected.
    Message { from: usize, to: usize, slot: usize },
    /// `from` sends another number of elements to `to` than that one expects; `witness` holds the numbers.
    Parts { from: usize, to: usize, witness: usize },
    /// The rank gave the group up on purpose.
    Aborted { rank: usize },
    /// Something that another host told `witness`, which holds the report.
    Elsewhere { witness: usize },
    /// The rank's memory could be read before, and then no more.
    Unreadable { rank: usize },
}

impl Failure {
    fn pack(self) -> u64 {
        let (kind, first, second, third) = match self {
            Self::Died { rank } => (1, rank, 0, 0),
            Self::Left { rank } => (2, rank, 0, 0),
            Self::TimedOut { rank } => (3, rank, 0, 0),
            Self::Mismatch { rank, other, slot } => (4, rank, other, slot),
            Self::Message { from, to, slot } => (5, from, to, slot),
            Self::Parts { from, to, witness } => (6, from, to, witness),
            Self::Aborted { rank } => (7, rank, 0, 0),
            Self::Elsewhere { witness } => (8, witness, 0, 0),
            Self::Unreadable { rank } => (9, rank, 0, 0),
        };
        kind | (first as u64) << 8 | (second as u64) << 24 | (third as u64) << 40
    }

    fn unpack(word: u64) -> Option<Self> {
        let field = |shift: u32| (word >> shift & 0xffff) as usize;
        let (rank, second, third) = (field(8), field(24), field(40));
        match word & 0xff {
            0 => None,
            1 => Some(Self::Died { rank }),
            2 => Some(Self::Left { rank }),
            3 => Some(Self::TimedOut { rank }),
            4 => Some(Self::Mismatch { rank, other: second, slot: third & 1 }),
            5 => Some(Self::Message { from: rank, to: second, slot: third & 1 }),
            6 => Some(Self::Parts { from: rank, to: second, witness: third }),
            7 => Some(Self::Aborted { rank }),
            8 => Some(Self::Elsewhere { witness: rank }),
            _ => Some(Self::Unreadable { rank }),
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

    /// The steps that a rank has begun.
    #[inline]
    pub(crate) fn step(&self, rank: usize) -> &Signal {
        &self.block(rank).step
    }

    /// Tells on which processor a rank runs.
    #[inline]
    pub(crate) fn set_processor(&self, rank: usize, processor: u32) {
        self.block(rank).processor.store(processor, Relaxed);
    }

    /// The processor on which a rank began its last step.
    pub(crate) fn processor(&self, rank: usize) -> u32 {
        self.block(rank).processor.load(Relaxed)
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

    /// Keeps the numbers behind [`Failure::Parts`] in the witness's block.
    pub(crate) fn keep_parts(&self, witness: usize, sent: usize, expected: usize) {
        let [first, second] = &self.block(witness).parts;
        first.store(sent as u64, SeqCst);
        second.store(expected as u64, SeqCst);
    }

    pub(crate) fn kept_parts(&self, witness: usize) -> (usize, usize) {
        let [sent, expected] = &self.block(witness).parts;
        (sent.load(SeqCst) as usize, expected.load(SeqCst) as usize)
    }

    /// Keeps the report behind [`Failure::Elsewhere`] in the witness's block.
    pub(crate) fn keep_report(&self, witness: usize, report: &Report) {
        let places = self.block(witness).report.iter();
        places.zip(report.words()).for_each(|(place, word)| place.store(*word, SeqCst));
    }

    pub(crate) fn kept_report(&self, witness: usize) -> [u64; REPORT_WORDS] {
        std::array::from_fn(|index| self.block(witness).report[index].load(SeqCst))
    }

    /// Tells the others how to read the memory of `rank`, whose process this is, and where to try it.
    pub(crate) fn offer_memory(&self, rank: usize, token: usize) {
        self.block(rank).process.store(std::process::id(), SeqCst);
        self.block(rank).token.store(token as u64, SeqCst);
    }

    pub(crate) fn offered_memory(&self, rank: usize) -> (u32, usize) {
        let block = self.block(rank);
        (block.process.load(SeqCst), block.token.load(SeqCst) as usize)
    }

    pub(crate) fn set_reads(&self, rank: usize, reads: bool) {
        self.block(rank).reads.store(u32::from(reads), SeqCst);
    }

    /// Whether `rank` can read the memory of all others; known a step after it has tried.
    pub(crate) fn reads(&self, rank: usize) -> bool {
        self.block(rank).reads.load(SeqCst) != 0
    }

    /// Tells the ranks that wait for `rank` that it gets on.
    pub(crate) fn make_progress(&self, rank: usize) {
        self.block(rank).progress.fetch_add(1, Relaxed);
    }

    pub(crate) fn progress(&self, rank: usize) -> u32 {
        self.block(rank).progress.load(Relaxed)
    }

    pub(crate) fn mark_ended(&self, rank: usize) {
        self.block(rank).ended.store(1, SeqCst);
        self.wake_everyone();
    }

    pub(crate) fn mark_going_on(&self, rank: usize) {
        self.block(rank).goes_on.store(1, SeqCst);
        self.wake_everyone();
    }

    pub(crate) fn goes_on(&self, rank: usize) -> bool {
        self.block(rank).goes_on.load(SeqCst) != 0
    }

    /// Whether `rank` can never again take part.
    pub(crate) fn is_gone(&self, rank: usize) -> bool {
        self.has_departed(rank) || self.block(rank).ended.load(SeqCst) != 0
    }

    /// Who goes on after the failure. The first proposal of any rank is everybody's decision.
    ///
    /// The members are of a group of `world_size`, of which this host may hold a part. A second decision of the same
    /// rank changes nothing.
    pub(crate) fn decide(&self, rank: usize, members: &[usize], world_size: usize) -> Vec<usize> {
        if let Some(decided) = self.decided(world_size) {
            return decided;
        }
        let places = self.block(rank).proposal.iter();
        places.zip(mask(members)).for_each(|(place, word)| place.store(word, SeqCst));
        let _ = self.head().decision.compare_exchange(0, rank as u32 + 1, SeqCst, SeqCst);
        self.wake_everyone();
        self.decided(world_size).unwrap_or_default()
    }

    pub(crate) fn decided(&self, world_size: usize) -> Option<Vec<usize>> {
        let proposer = (self.head().decision.load(SeqCst) as usize).checked_sub(1)?;
        let proposal = &self.block(proposer).proposal;
        Some(ranks(&std::array::from_fn(|index| proposal[index].load(SeqCst)), world_size))
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
        (0..self.world_size).for_each(|rank| self.step(rank).wake_all());
    }
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
    fn failures_survive_the_word_they_are_packed_in() {
        for failure in [
            Failure::Died { rank: 255 },
            Failure::Left { rank: 3 },
            Failure::TimedOut { rank: 0 },
            Failure::Mismatch { rank: 254, other: 255, slot: 1 },
            Failure::Message { from: 1, to: 0, slot: 1 },
            Failure::Parts { from: 7, to: 200, witness: 255 },
            Failure::Aborted { rank: 9 },
            Failure::Elsewhere { witness: 254 },
        ] {
            assert_eq!(Failure::unpack(failure.pack()), Some(failure));
        }
    }

    #[test]
    fn the_first_proposal_is_everybodys_decision() {
        let control = control(200);
        assert_eq!(control.decided(200), None);
        assert_eq!(control.decide(199, &[0, 63, 64, 199], 200), [0, 63, 64, 199]);
        assert_eq!(control.decide(0, &[0, 1], 200), [0, 63, 64, 199]);
        assert_eq!(control.decided(200), Some(vec![0, 63, 64, 199]));
    }
}
