//! A failure as a fixed number of words: so it travels between hosts, and lies in memory for the other ranks of a
//! host.

use std::time::Duration;

use crate::call::{Call, Words};
use crate::control::MAXIMUM_RANKS;
use crate::error::{Error, LossCause};

/// Words of a report.
pub(crate) const REPORT_WORDS: usize = 16;

const MASK_WORDS: usize = MAXIMUM_RANKS / 64;

/// Ranks as one bit each.
pub(crate) type Mask = [u64; MASK_WORDS];

pub(crate) fn mask(ranks: &[usize]) -> Mask {
    let mut mask = [0; MASK_WORDS];
    for rank in ranks {
        mask[rank / 64] |= 1 << (rank % 64);
    }
    mask
}

/// The ranks below `world_size` whose bits are set.
pub(crate) fn ranks(mask: &Mask, world_size: usize) -> Vec<usize> {
    (0..world_size).filter(|rank| mask[rank / 64] >> (rank % 64) & 1 != 0).collect()
}

/// A failure that concerns the whole group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report([u64; REPORT_WORDS]);

const LOST: u64 = 1;
const TIMEOUT: u64 = 2;
const MISMATCH: u64 = 3;
const PARTS: u64 = 4;
const ABORTED: u64 = 5;

impl Report {
    /// The report of an error, if it is one that ends the group.
    pub(crate) fn of(error: &Error) -> Option<Self> {
        Some(match error {
            Error::PeerLost { rank, cause, .. } => Self::new([LOST, *rank as u64, cause.code()], &[]),
            Error::Timeout { waiting_for, call, after } => {
                let nanoseconds = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
                Self::new([TIMEOUT, 0, nanoseconds], &[call.to_words(), mask(waiting_for)])
            }
            Error::Mismatch { rank, call, other_rank, other_call } => Self::new(
                [MISMATCH, *rank as u64, *other_rank as u64],
                &[call.to_words(), other_call.to_words()],
            ),
            Error::Parts { from, to, sent, expected, call } => Self::new(
                [PARTS, *from as u64, *to as u64],
                &[call.to_words(), [*sent as u64, *expected as u64, 0, 0]],
            ),
            Error::Aborted { rank } => Self::new([ABORTED, *rank as u64, 0], &[]),
            _ => return None,
        })
    }

    pub(crate) fn lost(rank: usize, cause: LossCause) -> Self {
        Self::new([LOST, rank as u64, cause.code()], &[])
    }

    fn new(head: [u64; 3], more: &[Words]) -> Self {
        let mut words = [0; REPORT_WORDS];
        let places = words.iter_mut();
        places.zip(head.iter().chain(more.iter().flatten())).for_each(|(place, word)| *place = *word);
        Self(words)
    }

    pub(crate) fn words(&self) -> &[u64; REPORT_WORDS] {
        &self.0
    }

    /// The report behind words from another rank, if a rank of such a group can have written them.
    pub(crate) fn from_words(words: [u64; REPORT_WORDS], world_size: usize) -> Option<Self> {
        let report = Self(words);
        report.decoded(world_size).map(|_| report)
    }

    /// The error, where the hosts of the ranks call themselves so.
    pub(crate) fn to_error(self, hosts: &[String]) -> Option<Error> {
        self.decoded(hosts.len()).map(|error| match error {
            Error::PeerLost { rank, cause, .. } => Error::PeerLost { rank, host: hosts[rank].clone(), cause },
            other => other,
        })
    }

    fn decoded(self, world_size: usize) -> Option<Error> {
        let rank = |word: u64| usize::try_from(word).ok().filter(|rank| *rank < world_size);
        let words = |at: usize| -> Words { std::array::from_fn(|index| self.0[at + index]) };
        let [kind, first, second, ..] = self.0;
        Some(match kind {
            LOST => Error::PeerLost {
                rank: rank(first)?,
                host: String::new(),
                cause: LossCause::from_code(second)?,
            },
            TIMEOUT => Error::Timeout {
                waiting_for: ranks(&words(7), world_size),
                call: Call::from_words(words(3))?,
                after: Duration::from_nanos(second),
            },
            MISMATCH => Error::Mismatch {
                rank: rank(first)?,
                call: Call::from_words(words(3))?,
                other_rank: rank(second)?,
                other_call: Call::from_words(words(7))?,
            },
            PARTS => Error::Parts {
                from: rank(first)?,
                to: rank(second)?,
                sent: usize::try_from(self.0[7]).ok()?,
                expected: usize::try_from(self.0[8]).ok()?,
                call: Call::from_words(words(3))?,
            },
            ABORTED => Error::Aborted { rank: rank(first)? },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::call::{Operation, Placement};
    use crate::element::{DataType, Reduction};

    fn call(index: u64, operation: Operation) -> Call {
        Call {
            index,
            operation,
            data_type: Some(DataType::BF16),
            count: 77,
            reduction: Some(Reduction::Sum),
            root: Some(3),
            placement: Placement::Registered,
        }
    }

    #[test]
    fn a_report_gives_the_error_back_on_another_host() {
        let hosts: Vec<String> = (0..70).map(|rank| format!("host-{rank}")).collect();
        let (first, second) = (call(8, Operation::AllReduce), call(9, Operation::Reduce));
        for error in [
            Error::PeerLost { rank: 66, host: "host-66".into(), cause: LossCause::Silent },
            Error::Timeout {
                waiting_for: vec![0, 63, 64, 69],
                call: first,
                after: Duration::from_millis(1500),
            },
            Error::Mismatch { rank: 1, call: first, other_rank: 69, other_call: second },
            Error::Parts { from: 2, to: 68, sent: 5, expected: 1 << 40, call: second },
            Error::Aborted { rank: 69 },
        ] {
            let report = Report::of(&error).unwrap();
            let back = Report::from_words(*report.words(), 70).unwrap().to_error(&hosts).unwrap();
            assert_eq!(back.to_string(), error.to_string());
        }
        assert_eq!(Report::of(&Error::Closed), None);
        assert_eq!(Report::from_words(*Report::lost(70, LossCause::Died).words(), 70), None);
    }

    proptest! {
        #[test]
        fn any_words_are_a_report_that_can_be_told_or_none(
            kind in 0..7_u64, words in prop::array::uniform15(any::<u64>()), small in any::<bool>(), world_size in 1..300_usize
        ) {
            let mut all = [kind; REPORT_WORDS];
            all[1..].copy_from_slice(&words);
            if small {
                all.iter_mut().skip(1).for_each(|word| *word %= 10);
            }
            let world_size = world_size.min(MAXIMUM_RANKS);
            let hosts = vec!["host".to_owned(); world_size];
            let report = Report::from_words(all, world_size);
            prop_assert_eq!(report.is_some(), Report(all).to_error(&hosts).is_some());
            if let Some(error) = report.and_then(|report| report.to_error(&hosts)) {
                let again = Report::of(&error).unwrap();
                prop_assert_eq!(again.to_error(&hosts).unwrap().to_string(), error.to_string());
            }
        }
    }
}
