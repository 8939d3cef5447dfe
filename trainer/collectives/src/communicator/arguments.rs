//! Checks of what the program passes in. What fails here disturbs no other rank.

use super::Communicator;
use crate::error::Error;

impl Communicator {
    pub(super) fn check_parts(&self, whole: usize, part: usize) -> Result<(), Error> {
        if part.checked_mul(self.world_size()) == Some(whole) {
            return Ok(());
        }
        let message = format!("{whole} elements are not {} parts of {part}", self.world_size());
        Err(Error::InvalidArgument(message))
    }

    pub(super) fn check_counts(&self, name: &str, whole: usize, counts: &[usize]) -> Result<(), Error> {
        if counts.len() != self.world_size() {
            let message =
                format!("{} counts are not one for each of {} ranks", counts.len(), self.world_size());
            return Err(Error::InvalidArgument(message));
        }
        let sum = counts.iter().try_fold(0_usize, |sum, count| sum.checked_add(*count));
        if sum == Some(whole) {
            return Ok(());
        }
        let message = format!("`{name}` holds {whole} elements, its parts {counts:?}");
        Err(Error::InvalidArgument(message))
    }

    pub(super) fn check_own_part(&self, name: &str, part: usize, counts: &[usize]) -> Result<(), Error> {
        let expected = counts[self.rank()];
        if part == expected {
            return Ok(());
        }
        let message = format!("`{name}` holds {part} elements, the counts give this rank {expected}");
        Err(Error::InvalidArgument(message))
    }

    pub(super) fn check_rank(&self, purpose: &str, rank: usize) -> Result<(), Error> {
        if rank < self.world_size() {
            return Ok(());
        }
        let message = format!("cannot {purpose} rank {rank} in a group of {}", self.world_size());
        Err(Error::InvalidArgument(message))
    }

    pub(super) fn check_peer(&self, purpose: &str, rank: usize) -> Result<(), Error> {
        self.check_rank(purpose, rank)?;
        if rank != self.rank() {
            return Ok(());
        }
        Err(Error::InvalidArgument(format!("cannot {purpose} rank {rank} on that rank itself")))
    }
}
