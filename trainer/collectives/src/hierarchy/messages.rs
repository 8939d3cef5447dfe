//! Messages between two ranks, on one host or on two.

use super::{Hierarchy, Remote};
use crate::call::{Call, Operation};
use crate::element::Element;
use crate::error::Error;
use crate::network::{Content, Incoming, Lane};

/// How many messages were exchanged with a rank of another host.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    sent: u64,
    received: u64,
}

impl Hierarchy {
    /// Passes a message to rank `to`; a short one is buffered.
    pub(crate) fn send<T: Element>(&mut self, call: Call, data: &[T], to: usize) -> Result<(), Error> {
        let local = &mut self.local;
        let Some(remote) = &mut self.remote else { return local.send(call, data, to) };
        if let Some(place) = remote.neighbour(to) {
            return local.send(call, data, place);
        }
        local.check_failure(call)?;
        let call = Call { index: remote.messages[to].sent, operation: Operation::Send, ..call };
        let mut outgoing = [remote.network.outgoing(to, call, Content::Contribution, data)];
        remote.exchange_on(Lane::Messages, local, call, &mut outgoing, &mut [])?;
        remote.messages[to].sent += 1;
        Ok(())
    }

    /// Takes the next message of rank `from`, which must be as long as `data`.
    pub(crate) fn receive<T: Element>(
        &mut self,
        call: Call,
        data: &mut [T],
        from: usize,
    ) -> Result<(), Error> {
        let local = &mut self.local;
        let Some(remote) = &mut self.remote else { return local.receive(call, data, from) };
        if let Some(place) = remote.neighbour(from) {
            return local.receive(call, data, place);
        }
        local.check_failure(call)?;
        let call = Call { index: remote.messages[from].received, operation: Operation::Receive, ..call };
        let mut incoming = [Incoming::new(from, Content::Contribution, data)];
        remote.exchange_on(Lane::Messages, local, call, &mut [], &mut incoming)?;
        remote.messages[from].received += 1;
        Ok(())
    }
}

impl Remote {
    /// The place of a rank on this host, if it is there.
    fn neighbour(&self, rank: usize) -> Option<usize> {
        self.own_ranks().iter().position(|member| *member == rank)
    }
}
