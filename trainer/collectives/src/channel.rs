//! A channel between two ranks: two slots in the sender's segment, and how far each side has come.

#![allow(unsafe_code)]

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::call::Words;
use crate::memory::{Mapping, PAGE, Shared};
use crate::signal::Signal;

/// Bytes of one slot of a channel.
pub(crate) const CHANNEL_SLOT: usize = 64 << 10;

/// Bytes of a channel.
pub(crate) const CHANNEL: usize = PAGE + 2 * CHANNEL_SLOT;

/// First page of a channel. Each side writes to lines of its own.
#[repr(C, align(128))]
struct Head {
    sent: Signal,
    sent_words: [[AtomicU64; 4]; 2],
    _padding: [u64; 7],
    taken: Signal,
    taken_words: [[AtomicU64; 4]; 2],
}

// SAFETY: atomics only; the padding is never read.
unsafe impl Shared for Head {}

/// The mapped channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channel<'a> {
    segment: &'a Mapping,
    offset: usize,
}

impl<'a> Channel<'a> {
    pub(crate) fn new(segment: &'a Mapping, offset: usize) -> Self {
        Self { segment, offset }
    }

    fn head(self) -> &'a Head {
        self.segment.view(self.offset)
    }

    /// How many pieces were put into the slots.
    pub(crate) fn sent(self) -> &'a Signal {
        &self.head().sent
    }

    /// How many pieces were taken out of them.
    pub(crate) fn taken(self) -> &'a Signal {
        &self.head().taken
    }

    /// Address of the slot of a piece.
    pub(crate) fn slot(self, piece: u32) -> *mut u8 {
        self.segment.at(self.offset + PAGE + (piece & 1) as usize * CHANNEL_SLOT)
    }

    /// Tells the receiver the call to which a piece belongs, before the piece is sent.
    pub(crate) fn announce_send(self, piece: u32, words: Words) {
        store(&self.head().sent_words[(piece & 1) as usize], words);
    }

    /// The call to which a piece that was sent belongs.
    pub(crate) fn announced_send(self, piece: u32) -> Words {
        load(&self.head().sent_words[(piece & 1) as usize])
    }

    /// Tells the sender what was expected instead of a piece.
    pub(crate) fn announce_receive(self, piece: u32, words: Words) {
        store(&self.head().taken_words[(piece & 1) as usize], words);
    }

    /// What the receiver expected instead of a piece.
    pub(crate) fn announced_receive(self, piece: u32) -> Words {
        load(&self.head().taken_words[(piece & 1) as usize])
    }
}

fn store(places: &[AtomicU64; 4], words: Words) {
    places.iter().zip(words).for_each(|(place, word)| place.store(word, Relaxed));
}

fn load(places: &[AtomicU64; 4]) -> Words {
    std::array::from_fn(|index| places[index].load(Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_fits_its_page() {
        assert!(size_of::<Head>() <= PAGE);
    }
}
