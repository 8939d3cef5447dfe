//! Agreement after a failure: who of all hosts is left to go on, and where they meet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Hierarchy, Remote};
use crate::error::Error;
use crate::network::Door;
use crate::options::NetworkOptions;
use crate::shared_memory::SharedMemory;

/// What is known of a rank that may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It wants to.
    GoesOn,
    /// It surely cannot.
    Gone,
    /// It was given up, but may live where it cannot be heard.
    Silent,
    /// It may still say that it wants to.
    Undecided,
}

impl Hierarchy {
    /// The ranks that go on after the group has failed, the same for all of them.
    pub(crate) fn survivors(&self, patience: Duration) -> Result<Vec<usize>, Error> {
        match &self.remote {
            None => self.local.survivors(patience),
            Some(remote) => remote.survivors(&self.local, patience),
        }
    }

    /// How to form a group that comes from this one and is led by its rank `leader`: none if this one is on one host.
    pub(crate) fn next_network(
        &self,
        options: Option<&NetworkOptions>,
        leader: usize,
    ) -> (Option<NetworkOptions>, Option<Arc<Door>>) {
        let (Some(remote), Some(options)) = (&self.remote, options) else { return (None, None) };
        // The leader itself needs no address, since it listens already.
        let address = remote.network.address(leader);
        let address = address.map_or_else(|| options.address.clone(), |address| address.to_string());
        (Some(NetworkOptions { address, ..options.clone() }), Some(Arc::clone(remote.network.door())))
    }
}

impl Remote {
    /// The lowest rank that is left decides. Waits until every rank has asked, left or died, but for silent ones at most
    /// as long as `patience`.
    fn survivors(&self, local: &SharedMemory, patience: Duration) -> Result<Vec<usize>, Error> {
        let control = local.control();
        if control.failure().is_none() {
            let message = "the group works: only one that has failed can be rebuilt".into();
            return Err(Error::InvalidArgument(message));
        }
        let began = Instant::now();
        control.mark_going_on(local.rank());
        self.network.peers().go_on();
        loop {
            let standings: Vec<Standing> =
                (0..self.world_size()).map(|rank| self.standing(local, rank)).collect();
            if let Some(members) = control.decided(self.world_size()) {
                return Ok(members);
            }
            let left = patience.saturating_sub(began.elapsed());
            let is_settled = !standings.contains(&Standing::Undecided);
            let with = |wanted: Standing| {
                let ranks = 0..self.world_size();
                ranks.filter(|rank| standings[*rank] == wanted).collect::<Vec<usize>>()
            };
            let members = with(Standing::GoesOn);
            if (is_settled || left.is_zero()) && members.first() == Some(&self.rank) {
                let silent = [with(Standing::Silent), with(Standing::Undecided)].concat();
                if is_minority(&members, &silent) {
                    return Err(Error::Minority { left: members, silent });
                }
                return Ok(self.network.peers().decide(&members));
            }
            // Another rank decides, which may be as patient but began later.
            if began.elapsed() > patience.saturating_mul(2) + 2 * self.network.silence() {
                return Err(Error::GivenUp { rank: self.rank });
            }
            local.doze(|| control.decided(self.world_size()).is_some());
        }
    }

    fn standing(&self, local: &SharedMemory, rank: usize) -> Standing {
        let peers = self.network.peers();
        let place = self.own_ranks().iter().position(|member| *member == rank);
        let (goes_on, is_gone, is_silent) = match place {
            Some(place) => (local.control().goes_on(place), local.control().is_gone(place), false),
            None => (peers.goes_on(rank), peers.is_gone(rank), peers.is_silent(rank)),
        };
        match (is_gone, goes_on, is_silent) {
            (true, _, _) => Standing::Gone,
            (false, true, _) => Standing::GoesOn,
            (false, false, true) => Standing::Silent,
            (false, false, false) => Standing::Undecided,
        }
    }
}

/// Whether the silent ranks could have gone on without the others: only the larger part of a divided group may go on,
/// of equal parts the one with the lowest rank.
fn is_minority(members: &[usize], silent: &[usize]) -> bool {
    silent.len() > members.len()
        || silent.len() == members.len() && silent.iter().min() < members.iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_divided_group_one_part_at_most_goes_on() {
        for divided in 0..1_u32 << 6 {
            let part = |side: u32| (0..6).filter(|rank| divided >> rank & 1 == side).collect::<Vec<usize>>();
            let goes_on =
                |members: &[usize], silent: &[usize]| !members.is_empty() && !is_minority(members, silent);
            let (left, right) = (part(0), part(1));
            assert!(goes_on(&left, &right) != goes_on(&right, &left), "{left:?} and {right:?}");
        }
    }
}
