//! A checksum that tells ranks apart which should hold the same.

/// A checksum of words that come one by one (FNV-1a over 64-bit words).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checksum(u64);

impl Default for Checksum {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Checksum {
    pub(crate) fn add(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    /// With these words behind.
    pub(crate) fn of(mut self, words: impl Iterator<Item = u64>) -> u64 {
        for word in words {
            self.add(word);
        }
        self.0
    }
}

/// A checksum of words.
pub(crate) fn checksum(words: impl Iterator<Item = u64>) -> u64 {
    Checksum::default().of(words)
}
