//! A way to end a group from another thread.

use std::sync::Arc;

use crate::control::{Control, Failure};
use crate::error::Error;
use crate::network::Peers;

/// Ends the group of a communicator, also while that one is inside a call. Made by
/// [`Communicator::aborter`](crate::Communicator::aborter).
#[derive(Clone, Debug)]
pub struct Aborter {
    control: Arc<Control>,
    /// Among the ranks of this host.
    local_rank: usize,
    rank: usize,
    /// The ranks of other hosts, if there are any.
    peers: Option<Arc<Peers>>,
}

impl Aborter {
    pub(crate) fn new(
        control: Arc<Control>,
        local_rank: usize,
        rank: usize,
        peers: Option<Arc<Peers>>,
    ) -> Self {
        Self { control, local_rank, rank, peers }
    }

    /// Ends the group: calls of all ranks, those under way too, fail with
    /// [`Error::Aborted`]. Nothing happens to a group that has failed before.
    pub fn abort(&self) {
        let failure = Failure::Aborted { rank: self.local_rank };
        if self.control.abort(failure) == failure
            && let Some(peers) = &self.peers
        {
            peers.tell(&Error::Aborted { rank: self.rank });
        }
    }
}
