//! Broadcast and all-gather: what one rank has, every rank gets. It crosses once to each host, and goes round there.

#![allow(unsafe_code)]

use super::{Hierarchy, Remote};
use crate::arena::RegisteredBuffer;
use crate::call::{Call, Operation};
use crate::element::Element;
use crate::error::Error;
use crate::network::{Content, Incoming};
use crate::shared_memory::{Counts, SharedMemory, copy_out};

/// How many elements a rank sends to another, and how many that one expects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) sent: usize,
    pub(super) expected: usize,
}

impl Hierarchy {
    pub(crate) fn broadcast<T: Element>(
        &mut self,
        call: Call,
        data: &mut [T],
        root: usize,
    ) -> Result<(), Error> {
        let local = &mut self.local;
        let Some(remote) = &self.remote else { return local.broadcast(call, data, root) };
        remote.enter(local, call)?;
        let (host, place) = remote.place_of(root);
        if remote.rank == root {
            let leaders = remote.other_hosts().map(|host| remote.hosts[host][0]);
            let mut outgoing: Vec<_> =
                leaders.map(|leader| remote.network.outgoing(leader, call, Content::Result, data)).collect();
            remote.exchange(local, call, &mut outgoing, &mut [])?;
        } else if host != remote.own_host && local.rank() == 0 {
            let mut incoming = [Incoming::new(root, Content::Result, data)];
            remote.exchange(local, call, &mut [], &mut incoming)?;
        }
        pass_round(local, call, data, if host == remote.own_host { place } else { 0 })
    }

    /// Concatenates what the ranks send into `receive`, on every rank or only on `root`.
    pub(crate) fn gather<T: Element>(
        &mut self,
        call: Call,
        send: &[T],
        receive: &mut [T],
        counts: Counts<'_>,
        root: Option<usize>,
    ) -> Result<(), Error> {
        let local = &mut self.local;
        let Some(remote) = &self.remote else { return local.gather(call, send, receive, counts, root) };
        match root {
            Some(root) => remote.gather_to(local, call, send, receive, counts, root),
            None => remote.all_gather(local, call, send, receive, counts),
        }
    }

    /// Fills every rank's buffer with the parts that lie at their places in the others' buffers.
    pub(crate) fn all_gather_registered<T: Element>(
        &mut self,
        call: Call,
        buffer: &mut RegisteredBuffer<T>,
    ) -> Result<(), Error> {
        let local = &mut self.local;
        let Some(remote) = &self.remote else { return local.all_gather_registered(call, buffer) };
        local.check_owner(buffer)?;
        let result = remote.all_gather_where_it_lies(local, call, buffer);
        buffer.detached_if_failed(result)
    }
}

impl Remote {
    fn all_gather<T: Element>(
        &self,
        local: &mut SharedMemory,
        call: Call,
        send: &[T],
        receive: &mut [T],
        counts: Counts<'_>,
    ) -> Result<(), Error> {
        if call.operation == Operation::AllGatherV {
            // Afterwards all ranks are known to mean the same parts, whoever passes them on.
            let sent = self.gather_counts(local, call, &[send.len() as u64])?;
            self.check_counts(local, call, |from| Part {
                from,
                to: self.rank,
                sent: sent[from] as usize,
                expected: counts.of(from),
            })?;
        } else {
            self.enter(local, call)?;
        }
        self.gather_parts(local, call, send, receive, counts)
    }

    /// As an all-gather between ranks that are known to mean the same parts.
    fn gather_parts<T: Element>(
        &self,
        local: &mut SharedMemory,
        call: Call,
        send: &[T],
        receive: &mut [T],
        counts: Counts<'_>,
    ) -> Result<(), Error> {
        let place = local.rank();
        let mut parts = cut(receive, counts, self.world_size());
        parts[self.rank].copy_from_slice(send);
        let partners = self.other_hosts().map(|host| self.partner(host, place));
        let mut outgoing: Vec<_> = partners
            .map(|partner| self.network.outgoing(partner, call, Content::Contribution, send))
            .collect();
        let mine: Vec<usize> = self.partners_of(place).collect();
        let mut incoming: Vec<_> = parts
            .iter_mut()
            .enumerate()
            .filter(|(rank, _)| mine.contains(rank))
            .map(|(rank, part)| Incoming::new(rank, Content::Contribution, part))
            .collect();
        self.exchange(local, call, &mut outgoing, &mut incoming)?;
        for (rank, part) in parts.into_iter().enumerate() {
            let (host, place) = self.place_of(rank);
            let place = if host == self.own_host { place } else { place % local.world_size() };
            pass_round(local, call, part, place)?;
        }
        Ok(())
    }

    /// Gathers as many numbers of every rank.
    pub(super) fn gather_counts(
        &self,
        local: &mut SharedMemory,
        call: Call,
        own: &[u64],
    ) -> Result<Vec<u64>, Error> {
        // Their bytes, since numbers of this kind are no elements.
        let mut all = vec![0_u64; own.len() * self.world_size()];
        let own: &[i64] = bytemuck::cast_slice(own);
        self.enter(local, call)?;
        let counts = Counts::Even(own.len());
        self.gather_parts(local, call, own, bytemuck::cast_slice_mut(&mut all), counts)?;
        Ok(all)
    }

    /// Ends the group if one of the parts, of which `part` gives one a rank, is not as long as is expected.
    pub(super) fn check_counts(
        &self,
        local: &SharedMemory,
        call: Call,
        part: impl Fn(usize) -> Part,
    ) -> Result<(), Error> {
        let mut parts = (0..self.world_size()).map(part);
        parts.find(|part| part.sent != part.expected).map_or(Ok(()), |Part { from, to, sent, expected }| {
            Err(self.fail(local, call, Error::Parts { from, to, sent, expected, call }))
        })
    }

    /// A rank receives what its partners send and writes it to the buffers of all ranks of its host, which copy from
    /// each other what is theirs.
    fn all_gather_where_it_lies<T: Element>(
        &self,
        local: &mut SharedMemory,
        call: Call,
        buffer: &mut RegisteredBuffer<T>,
    ) -> Result<(), Error> {
        local.enter(call, buffer.offset())?;
        let (place, part) = (local.rank(), call.count / self.world_size());
        let places = local.registered_places::<T>(call, 0);
        let mine: Vec<usize> = self.partners_of(place).collect();
        let at = |place: usize, rank: usize| places[place].wrapping_add(rank * part).cast_mut();
        // SAFETY: in all buffers of the host this rank alone writes the parts of its partners, and in its own those of
        // its host but its own part, which nobody writes. All are distinct.
        unsafe {
            let own = std::slice::from_raw_parts(at(place, self.rank), part);
            let partners = self.other_hosts().map(|host| self.partner(host, place));
            let mut outgoing: Vec<_> = partners
                .map(|partner| self.network.outgoing(partner, call, Content::Contribution, own))
                .collect();
            let part_of = |rank: usize| std::slice::from_raw_parts_mut(at(place, rank), part);
            let mut incoming: Vec<_> =
                mine.iter().map(|rank| Incoming::new(*rank, Content::Contribution, part_of(*rank))).collect();
            self.exchange(local, call, &mut outgoing, &mut incoming)?;
            for peer in (0..local.world_size()).filter(|peer| *peer != place) {
                for rank in &mine {
                    copy_out(at(place, *rank).cast(), at(peer, *rank), part);
                }
                let rank = self.own_ranks()[peer];
                copy_out(at(peer, rank).cast(), at(place, rank), part);
            }
        }
        local.conclude(call)
    }
}

/// Copies data of the rank at some place of this host to all ranks of it.
fn pass_round<T: Element>(
    local: &mut SharedMemory,
    call: Call,
    data: &mut [T],
    place: usize,
) -> Result<(), Error> {
    if local.world_size() == 1 { Ok(()) } else { local.broadcast(call, data, place) }
}

/// The parts of data, by rank.
pub(super) fn cut<'a, T>(mut data: &'a mut [T], counts: Counts<'_>, world_size: usize) -> Vec<&'a mut [T]> {
    let mut parts = Vec::with_capacity(world_size);
    for rank in 0..world_size {
        let (part, rest) = data.split_at_mut(counts.of(rank));
        parts.push(part);
        data = rest;
    }
    parts
}
