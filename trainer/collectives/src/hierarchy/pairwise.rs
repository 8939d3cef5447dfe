//! Gather, scatter and all-to-all: what goes from one rank to one other goes straight there.

use super::gather::{Part, cut};
use super::{Hierarchy, Remote};
use crate::call::{Call, Operation};
use crate::element::Element;
use crate::error::Error;
use crate::network::{Content, Incoming, Outgoing};
use crate::shared_memory::{Counts, SharedMemory};

impl Hierarchy {
    /// Gives each rank its part of what `root` sends.
    pub(crate) fn scatter<T: Element>(
        &mut self,
        call: Call,
        send: &[T],
        receive: &mut [T],
        counts: Counts<'_>,
        root: usize,
    ) -> Result<(), Error> {
        let local = &mut self.local;
        let Some(remote) = &self.remote else { return local.scatter(call, send, receive, counts, root) };
        if call.operation == Operation::ScatterV {
            let expected = remote.gather_counts(local, call, &[receive.len() as u64])?;
            if remote.rank == root {
                remote.check_counts(local, call, |to| Part {
                    from: root,
                    to,
                    sent: counts.of(to),
                    expected: expected[to] as usize,
                })?;
            }
        } else {
            remote.enter(local, call)?;
        }
        let (host, place) = remote.place_of(root);
        if host != remote.own_host {
            let mut incoming = [Incoming::new(root, Content::Contribution, receive)];
            return remote.exchange(local, call, &mut [], &mut incoming);
        }
        if remote.rank == root {
            let mut outgoing = remote.outgoing_parts(call, send, counts);
            remote.exchange(local, call, &mut outgoing, &mut [])?;
        }
        local.scatter(call, send, receive, Counts::Members(&counts, remote.own_ranks()), place)
    }

    /// Gives each rank its part of what every rank sends.
    pub(crate) fn all_to_all<T: Element>(
        &mut self,
        call: Call,
        (send, send_counts): (&[T], Counts<'_>),
        (receive, receive_counts): (&mut [T], Counts<'_>),
    ) -> Result<(), Error> {
        let local = &mut self.local;
        let Some(remote) = &self.remote else {
            return local.all_to_all(call, (send, send_counts), (receive, receive_counts));
        };
        if call.operation == Operation::AllToAllV {
            remote.check_matrix(local, call, send_counts, receive_counts)?;
        } else {
            remote.enter(local, call)?;
        }
        let members = remote.own_ranks();
        local.all_to_all(
            call,
            (send, Counts::Members(&send_counts, members)),
            (receive, Counts::Members(&receive_counts, members)),
        )?;
        let mut outgoing = remote.outgoing_parts(call, send, send_counts);
        let mut incoming = remote.incoming_parts(call, receive, receive_counts);
        remote.exchange(local, call, &mut outgoing, &mut incoming)
    }
}

impl Remote {
    /// Concatenates what the ranks send on `root`.
    pub(super) fn gather_to<T: Element>(
        &self,
        local: &mut SharedMemory,
        call: Call,
        send: &[T],
        receive: &mut [T],
        counts: Counts<'_>,
        root: usize,
    ) -> Result<(), Error> {
        self.enter(local, call)?;
        let (host, place) = self.place_of(root);
        if host != self.own_host {
            let mut outgoing = [self.network.outgoing(root, call, Content::Contribution, send)];
            return self.exchange(local, call, &mut outgoing, &mut []);
        }
        local.gather(call, send, receive, Counts::Members(&counts, self.own_ranks()), Some(place))?;
        if self.rank != root {
            return Ok(());
        }
        let mut incoming = self.incoming_parts(call, receive, counts);
        self.exchange(local, call, &mut [], &mut incoming)
    }

    /// Checks on every rank that all ranks expect what the others send.
    fn check_matrix(
        &self,
        local: &mut SharedMemory,
        call: Call,
        sent: Counts<'_>,
        expected: Counts<'_>,
    ) -> Result<(), Error> {
        let world_size = self.world_size();
        let own: Vec<u64> = (0..world_size)
            .map(|rank| sent.of(rank) as u64)
            .chain((0..world_size).map(|rank| expected.of(rank) as u64))
            .collect();
        let all = self.gather_counts(local, call, &own)?;
        let number = |rank: usize, at: usize| all[2 * world_size * rank + at] as usize;
        for from in 0..world_size {
            self.check_counts(local, call, |to| Part {
                from,
                to,
                sent: number(from, to),
                expected: number(to, world_size + from),
            })?;
        }
        Ok(())
    }

    /// The parts of what is sent that go to the ranks of other hosts.
    fn outgoing_parts<'a, T: Element>(
        &self,
        call: Call,
        send: &'a [T],
        counts: Counts<'_>,
    ) -> Vec<Outgoing<'a>> {
        let outgoing = |rank| {
            let part = &send[counts.place(rank, &(0..counts.of(rank)))];
            self.network.outgoing(rank, call, Content::Contribution, part)
        };
        self.remote_ranks().map(outgoing).collect()
    }

    /// Places for what the ranks of other hosts send.
    fn incoming_parts<'a, T: Element>(
        &self,
        call: Call,
        receive: &'a mut [T],
        counts: Counts<'_>,
    ) -> Vec<Incoming<'a>> {
        debug_assert_eq!(call.data_type, Some(T::DATA_TYPE));
        let parts = cut(receive, counts, self.world_size()).into_iter().enumerate();
        let remote = parts.filter(|(rank, _)| !self.own_ranks().contains(rank));
        remote.map(|(rank, part)| Incoming::new(rank, Content::Contribution, part)).collect()
    }
}
