//! What stands in front of data between two hosts: which call it belongs to, so that both sides notice at once when
//! they do not mean the same.

use crate::call::Words;
use crate::codec::Reader;

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 64;

const MAGIC: u32 = u32::from_le_bytes(*b"MSTD");

/// What data is, within its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing: the call is announced.
    Announcement,
    /// What a rank passes in, or its host's part of a reduction.
    Contribution,
    /// What has come of a call.
    Result,
}

impl Content {
    fn from_code(code: u16) -> Option<Self> {
        [Self::Announcement, Self::Contribution, Self::Result]
            .into_iter()
            .find(|content| *content as u16 == code)
    }
}

/// The header of some data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Of the group, so that nothing is taken from an earlier one.
    pub(crate) session: u64,
    /// The call that the sender makes.
    pub(crate) call: Words,
    pub(crate) content: Content,
    /// Bytes of an element, as it travels.
    pub(crate) width: u16,
    /// Bytes behind the header.
    pub(crate) bytes: u64,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..6].copy_from_slice(&(self.content as u16).to_le_bytes());
        bytes[6..8].copy_from_slice(&self.width.to_le_bytes());
        let words = [self.session, self.bytes].into_iter().chain(self.call);
        for (place, word) in bytes[8..].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The header in some bytes, if a rank can have written it.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let mut reader = Reader(bytes);
        reader.u32().filter(|magic| *magic == MAGIC)?;
        let content = Content::from_code(reader.u16()?)?;
        let width = reader.u16()?;
        let (session, bytes) = (reader.u64()?, reader.u64()?);
        let call = [reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?];
        Some(Self { session, call, content, width, bytes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn headers_round_trip(session: u64, call: [u64; 4], content in 0..3_u16, width: u16, bytes: u64) {
            let content = Content::from_code(content).unwrap();
            let header = Header { session, call, content, width, bytes };
            prop_assert_eq!(Header::decode(&header.encode()), Some(header));
        }

        #[test]
        fn any_bytes_are_a_header_or_none(words: [u64; 8], is_marked: bool) {
            let mut bytes = [0; HEADER_BYTES];
            for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
                place.copy_from_slice(&word.to_le_bytes());
            }
            if is_marked {
                bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
                bytes[4] %= 4;
                bytes[5] = 0;
            }
            if let Some(header) = Header::decode(&bytes) {
                // Nothing is lost, but the rest, which is reserved.
                prop_assert_eq!(&header.encode()[..56], &bytes[..56]);
            } else {
                prop_assert!(!is_marked || bytes[4] == 3);
            }
        }
    }
}
