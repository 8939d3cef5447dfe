//! Checksums: BLAKE3, chunk by chunk.
//!
//! BLAKE3 is a tree of hashes, so one pass gives both what a partial read is checked with (the chaining value of each
//! chunk) and the hash of the whole file, which is what the program `b3sum` prints. No accident and no forgery passes it,
//! and at some GB/s on one core it is faster than the disks and networks that the bytes go to, as a CRC would be.

use std::fmt;

use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A BLAKE3 hash; in text, 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checksum([u8; 32]);

impl Checksum {
    /// The checksum of bytes as a whole.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }

    /// The checksum that the text stands for.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(Self(blake3::Hash::from_hex(text).ok()?.into()))
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for Checksum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Checksum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("a checksum is 64 hexadecimal digits"))
    }
}

/// How many bytes share a checksum: a power of two, at least 1 KiB and at most 1 GiB.
///
/// A partial read reads whole chunks, and memory for some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct ChunkSize(u64);

impl ChunkSize {
    /// `None` unless `bytes` is a power of two from 1 KiB to 1 GiB.
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 1 << 10 && bytes <= 1 << 30 { Some(Self(bytes)) } else { None }
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl Default for ChunkSize {
    /// 4 MiB: long enough for every disk and object store, short enough to be read for a few elements.
    fn default() -> Self {
        Self(4 << 20)
    }
}

impl TryFrom<u64> for ChunkSize {
    type Error = &'static str;

    fn try_from(bytes: u64) -> Result<Self, Self::Error> {
        Self::new(bytes).ok_or("a chunk is a power of two of bytes, from 1 KiB to 1 GiB")
    }
}

impl From<ChunkSize> for u64 {
    fn from(size: ChunkSize) -> Self {
        size.0
    }
}

/// The checksums of a file that is seen chunk by chunk.
#[derive(Debug)]
pub(crate) struct Summer {
    size: ChunkSize,
    bytes: u64,
    chunks: Vec<Checksum>,
    /// The hash of the file as long as it is one chunk.
    first: Option<Checksum>,
}

impl Summer {
    pub(crate) fn new(size: ChunkSize) -> Self {
        Self { size, bytes: 0, chunks: Vec::new(), first: None }
    }

    /// Adds the next chunk, which is full unless it is the last, and never empty.
    pub(crate) fn add(&mut self, chunk: &[u8]) {
        let hasher = hasher(self.size, self.chunks.len() as u64, chunk);
        if self.chunks.is_empty() {
            self.first = Some(Checksum(hasher.finalize().into()));
        }
        self.chunks.push(Checksum(hasher.finalize_non_root()));
        self.bytes += chunk.len() as u64;
    }

    /// The checksum of the whole file, and those of its chunks.
    pub(crate) fn finish(self) -> (Checksum, Vec<Checksum>) {
        let whole = match self.first {
            None => Checksum::of(&[]),
            Some(first) if self.chunks.len() == 1 => first,
            Some(_) => merged(self.size, self.bytes, &self.chunks),
        };
        (whole, self.chunks)
    }
}

/// The checksum of the chunk of that index.
pub(crate) fn chunk_checksum(size: ChunkSize, index: u64, chunk: &[u8]) -> Checksum {
    Checksum(hasher(size, index, chunk).finalize_non_root())
}

fn hasher(size: ChunkSize, index: u64, chunk: &[u8]) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(index * size.0).update(chunk);
    hasher
}

/// The checksum of a file of more than one chunk, from those of its chunks; they must be as many as the file has.
pub(crate) fn merged(size: ChunkSize, bytes: u64, chunks: &[Checksum]) -> Checksum {
    debug_assert!(chunks.len() as u64 == bytes.div_ceil(size.0) && chunks.len() > 1);
    let left_bytes = left_subtree_len(bytes);
    let (left, right) = chunks.split_at((left_bytes / size.0) as usize);
    let left = subtree(size, left_bytes, left);
    let right = subtree(size, bytes - left_bytes, right);
    Checksum(merge_subtrees_root(&left, &right, Mode::Hash).into())
}

/// The tree halves at every step, so it is as deep as a length has bits.
fn subtree(size: ChunkSize, bytes: u64, chunks: &[Checksum]) -> [u8; 32] {
    if let [only] = chunks {
        return only.0;
    }
    let left_bytes = left_subtree_len(bytes);
    let (left, right) = chunks.split_at((left_bytes / size.0) as usize);
    merge_subtrees_non_root(
        &subtree(size, left_bytes, left),
        &subtree(size, bytes - left_bytes, right),
        Mode::Hash,
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_chunks_give_the_hash_of_the_file(length in 1_usize..40_000, seed: u64) {
            let bytes: Vec<u8> = (0..length as u64).map(|at| (at.wrapping_mul(seed | 1) >> 7) as u8).collect();
            let size = ChunkSize::new(1024).unwrap();
            let mut summer = Summer::new(size);
            bytes.chunks(1024).for_each(|chunk| summer.add(chunk));
            let (whole, chunks) = summer.finish();
            prop_assert_eq!(whole, Checksum::of(&bytes));
            prop_assert_eq!(chunks.len(), length.div_ceil(1024));
            prop_assert_eq!(Checksum::parse(&whole.to_string()), Some(whole));
        }
    }

    #[test]
    fn sizes_of_chunks_are_powers_of_two() {
        assert!([1 << 10, 4 << 20, 1 << 30].into_iter().all(|bytes| ChunkSize::new(bytes).is_some()));
        assert!([0, 512, 1000, 3 << 20, 1 << 31].into_iter().all(|bytes| ChunkSize::new(bytes).is_none()));
        assert!(serde_json::from_str::<ChunkSize>("1025").is_err());
    }
}
