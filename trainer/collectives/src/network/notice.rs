//! What ranks of different hosts tell each other beside the data, in frames of one length.

use crate::report::{Mask, REPORT_WORDS, Report};

/// Bytes of a frame.
pub(super) const FRAME_BYTES: usize = 8 + 8 * REPORT_WORDS;

pub(super) type Frame = [u8; FRAME_BYTES];

/// Something that a rank tells others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// It is there.
    Heartbeat,
    /// It leaves the group.
    Leaving,
    /// The group has failed.
    Failed(Report),
    /// It wants to go on with those who are left.
    GoesOn,
    /// Those go on.
    Decided(Mask),
}

impl Notice {
    pub(super) fn encode(self) -> Frame {
        let (kind, words): (u8, &[u64]) = match &self {
            Self::Heartbeat => (1, &[]),
            Self::Leaving => (2, &[]),
            Self::Failed(report) => (3, report.words()),
            Self::GoesOn => (4, &[]),
            Self::Decided(mask) => (5, mask),
        };
        let mut frame = [0; FRAME_BYTES];
        frame[0] = kind;
        for (place, word) in frame[8..].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        frame
    }

    /// The notice in a frame, if a rank of a group of this size can have written it.
    pub(super) fn decode(frame: &Frame, world_size: usize) -> Option<Self> {
        let mut words = [0_u64; REPORT_WORDS];
        let (chunks, _) = frame[8..].as_chunks::<8>();
        words.iter_mut().zip(chunks).for_each(|(word, bytes)| *word = u64::from_le_bytes(*bytes));
        match frame[0] {
            1 => Some(Self::Heartbeat),
            2 => Some(Self::Leaving),
            3 => Report::from_words(words, world_size).map(Self::Failed),
            4 => Some(Self::GoesOn),
            5 => Some(Self::Decided(std::array::from_fn(|index| words[index]))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::LossCause;
    use crate::report::mask;

    #[test]
    fn notices_round_trip() {
        for notice in [
            Notice::Heartbeat,
            Notice::Leaving,
            Notice::Failed(Report::lost(7, LossCause::Silent)),
            Notice::GoesOn,
            Notice::Decided(mask(&[0, 64, 255])),
        ] {
            assert_eq!(Notice::decode(&notice.encode(), 8), Some(notice));
        }
        assert_eq!(Notice::decode(&Notice::Failed(Report::lost(8, LossCause::Died)).encode(), 8), None);
    }

    proptest! {
        #[test]
        fn any_frame_is_a_notice_or_none(kind in 0..8_u8, bytes in prop::collection::vec(any::<u8>(), FRAME_BYTES)) {
            let mut frame = [0; FRAME_BYTES];
            frame.copy_from_slice(&bytes);
            frame[0] = kind;
            if let Some(notice) = Notice::decode(&frame, 256) {
                prop_assert_eq!(Notice::decode(&notice.encode(), 256), Some(notice));
            }
        }
    }
}
