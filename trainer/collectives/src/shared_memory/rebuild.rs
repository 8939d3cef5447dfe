//! Agreement after a failure: who is left to go on.

use std::time::{Duration, Instant};

use super::{NAP, SharedMemory};
use crate::error::Error;

impl SharedMemory {
    /// The ranks that go on after the group has failed, the same for all of them. Waits until every rank has asked,
    /// left or died, but for silent ones at most as long as `patience`.
    pub(crate) fn survivors(&self, patience: Duration) -> Result<Vec<usize>, Error> {
        if self.control.failure().is_none() {
            let message = "the group works: only one that has failed can be rebuilt".into();
            return Err(Error::InvalidArgument(message));
        }
        let began = Instant::now();
        self.control.mark_going_on(self.rank);
        loop {
            // In this order: a rank that has decided may be gone already.
            let is_settled = |rank| self.control.goes_on(rank) || self.control.is_gone(rank);
            let settled = (0..self.world_size()).all(is_settled);
            if let Some(members) = self.control.decided(self.world_size()) {
                return Ok(members);
            }
            let left = patience.saturating_sub(began.elapsed());
            if settled || left.is_zero() {
                let goes_on = |rank: &usize| self.control.goes_on(*rank) && !self.control.is_gone(*rank);
                let members: Vec<usize> = (0..self.world_size()).filter(goes_on).collect();
                return Ok(self.control.decide(self.rank, &members, self.world_size()));
            }
            self.doze(|| left.is_zero() || self.control.decided(self.world_size()).is_some());
        }
    }

    /// Sleeps for a moment; woken by whoever asks to go on, leaves or dies.
    pub(crate) fn doze(&self, is_over: impl FnOnce() -> bool) {
        let never = self.sequence.wrapping_add(1);
        self.control.step(self.rank).sleep(never, NAP, is_over);
    }
}
