//! Which checkpoints stay.

use std::num::{NonZeroU64, NonZeroUsize};

/// Keeps the newest checkpoints and, beside them, those of every so many steps. The newest one always stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How many of the newest stay.
    pub newest: NonZeroUsize,
    /// Those whose step is a multiple of this stay too.
    pub every: Option<NonZeroU64>,
}

impl Retention {
    /// The steps that go, of `steps`, oldest first.
    pub fn removes(&self, steps: &[u64]) -> Vec<u64> {
        let mut sorted = steps.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.truncate(sorted.len().saturating_sub(self.newest.get()));
        sorted.retain(|step| self.every.is_none_or(|every| *step % every != 0));
        sorted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_newest_and_the_round_ones_stay() {
        let retention = Retention { newest: NonZeroUsize::new(2).unwrap(), every: NonZeroU64::new(100) };
        assert_eq!(retention.removes(&[350, 300, 250, 100, 50]), [50, 250]);
        let retention = Retention { every: None, ..retention };
        assert_eq!(retention.removes(&[350, 300, 250, 100]), [100, 250]);
    }

    proptest! {
        #[test]
        fn the_newest_stays(steps in proptest::collection::vec(any::<u64>(), 1..20), newest in 1_usize..30) {
            let retention = Retention { newest: NonZeroUsize::new(newest).unwrap(), every: None };
            let removed = retention.removes(&steps);
            prop_assert!(!removed.contains(steps.iter().max().unwrap()));
            prop_assert!(removed.iter().all(|step| steps.contains(step)));
        }
    }
}
