//! Groups that come from a group: some of its ranks, or those that are left of it.

use std::time::Duration;

use crate::communicator::Communicator;
use crate::error::Error;
use crate::options::Options;

impl Communicator {
    /// Forms a group of the ranks that pass the same `colour`, in the order of their keys, of their ranks where keys
    /// are equal. Every rank of this group must call it; one that passes no colour gets no group. Both groups can be
    /// used side by side.
    pub fn split(&mut self, colour: Option<u32>, key: i64) -> Result<Option<Self>, Error> {
        let index = self.calls;
        let mut all = vec![0; 2 * self.world_size()];
        self.all_gather(&[colour.map_or(-1, i64::from), key], &mut all)?;
        let Some(colour) = colour else { return Ok(None) };
        let mut members: Vec<(i64, usize)> = (0..self.world_size())
            .filter(|rank| all[2 * rank] == i64::from(colour))
            .map(|rank| (all[2 * rank + 1], rank))
            .collect();
        members.sort_unstable();
        let ranks: Vec<usize> = members.into_iter().map(|(_, rank)| rank).collect();
        self.derive(&ranks, &format!("{index}-{colour}"), self.options.generation).map(Some)
    }

    /// Forms a group of the ranks that are left after this one has failed, without a new process. Every rank that
    /// wants to go on must call it. The ranks keep their order; they wait for silent ones at most as long as
    /// `patience`, and a rank that comes too late gets [`Error::GivenUp`].
    ///
    /// Buffers of the failed group can be read and written, but the new group needs its own.
    pub fn rebuild(self, patience: Duration) -> Result<Self, Error> {
        let survivors = self.transport.survivors(patience)?;
        self.derive(&survivors, "rebuilt", self.options.generation + 1)
    }

    fn derive(&self, ranks: &[usize], suffix: &str, generation: u64) -> Result<Self, Error> {
        let Some(rank) = ranks.iter().position(|rank| *rank == self.rank()) else {
            return Err(Error::GivenUp { rank: self.rank() });
        };
        // The session makes the name unique, so it need not grow with every descent.
        let group = format!("{:.64}-{:x}-{suffix}", self.options.group, self.session());
        // All ranks are there already: who does not come soon has died meanwhile.
        let join_deadline = self.options.join_deadline.min(self.options.deadline);
        let (network, door) = self.transport.next_network(self.options.network.as_ref(), ranks[0]);
        let options = Options {
            network,
            group,
            generation,
            rank,
            world_size: ranks.len(),
            join_deadline,
            ..self.options.clone()
        };
        Self::connect_at(&options, door)
    }
}
