//! What a rank with certificates says before the connection is secured, for the errors of the other side: nobody can
//! know yet whether it is true.

use std::fmt;

use super::handshake::HOST_BYTES;
use crate::codec::{Reader, put_text};

/// Tells a preface from a hello, which begins with a purpose.
const KIND: u8 = 0xff;

/// Who calls, by its own account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Preface {
    pub(super) rank: usize,
    pub(super) host: String,
}

impl Preface {
    /// The preface behind its length.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = vec![KIND];
        body.extend((self.rank as u32).to_le_bytes());
        put_text(&mut body, &self.host, HOST_BYTES);
        [&(body.len() as u16).to_le_bytes()[..], &body].concat()
    }

    /// Reads what [`Self::encode`] wrote, without its length; none if it is something else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        reader.u8().filter(|kind| *kind == KIND)?;
        let rank = reader.u32()? as usize;
        // Of a stranger, and for people's eyes.
        let host = reader.text()?.chars().filter(|letter| !letter.is_control()).collect();
        Some(Self { rank, host })
    }
}

impl fmt::Display for Preface {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "rank {} on {}", self.rank, self.host)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn prefaces_round_trip(rank in 0..256_usize, host in "[a-z0-9.-]{0,64}") {
            let preface = Preface { rank, host };
            prop_assert_eq!(Preface::decode(&preface.encode()[2..]), Some(preface));
        }

        #[test]
        fn any_bytes_are_a_preface_or_none(mut bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Some(first) = bytes.first_mut() {
                *first |= 0xfc;
            }
            if let Some(preface) = Preface::decode(&bytes) {
                prop_assert_eq!(bytes[0], KIND);
                prop_assert!(!preface.host.contains(char::is_control));
            }
        }
    }
}
