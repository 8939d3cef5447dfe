//! Broadcast and gather: what one rank has, others get whole.

#![allow(unsafe_code)]

use super::SharedMemory;
use super::parts::{Counts, copy_in, copy_out};
use crate::arena::{RegisteredBuffer, SLOT};
use crate::call::Call;
use crate::element::Element;
use crate::error::Error;

impl SharedMemory {
    pub(crate) fn broadcast<T: Element>(
        &mut self,
        call: Call,
        data: &mut [T],
        root: usize,
    ) -> Result<(), Error> {
        self.in_pieces(call, data.len(), SLOT / size_of::<T>(), |group, piece, first| {
            let slot = group.arena.slot(root, group.turn);
            let data = &mut data[piece];
            if group.rank == root {
                // SAFETY: a piece fits a slot, and no peer reads this slot before the step below.
                unsafe { copy_in(data.as_ptr(), data.len(), slot) };
                group.meet(call, first)
            } else {
                group.meet(call, first)?;
                // SAFETY: the root filled its slot before the step.
                unsafe { copy_out(slot, data.as_mut_ptr(), data.len()) };
                Ok(())
            }
        })
    }

    /// Concatenates what the ranks send into `receive`, on every rank or only on `root`. `counts` says what this rank
    /// expects, where it receives.
    pub(crate) fn gather<T: Element>(
        &mut self,
        call: Call,
        send: &[T],
        receive: &mut [T],
        counts: Counts<'_>,
        root: Option<usize>,
    ) -> Result<(), Error> {
        let receives = root.is_none_or(|root| root == self.rank);
        let (rank, world_size) = (self.rank, self.world_size());
        if receives {
            receive[counts.place(rank, &(0..send.len()))].copy_from_slice(send);
        }
        let mut longest = send.len();
        self.in_pieces_until(call, SLOT / size_of::<T>(), |group, piece, first| {
            let own = &send[piece.start.min(send.len())..piece.end.min(send.len())];
            // SAFETY: a piece fits a slot, and no peer reads this slot before the step below.
            unsafe { copy_in(own.as_ptr(), own.len(), group.arena.slot(rank, group.turn)) };
            group.meet(call, first)?;
            if first {
                for peer in 0..world_size {
                    let sent = group.announced_count(peer, call);
                    longest = longest.max(sent);
                    if receives && counts.of(peer) != sent {
                        return Err(group.fail_parts(peer, rank, sent, counts.of(peer), call));
                    }
                }
            }
            for peer in (0..world_size).filter(|peer| receives && *peer != rank) {
                let place = &mut receive[counts.place(peer, &piece)];
                // SAFETY: the peer filled its slot before the step.
                unsafe { copy_out(group.arena.slot(peer, group.turn), place.as_mut_ptr(), place.len()) };
            }
            Ok(longest)
        })
    }

    /// Fills every rank's buffer with the parts that lie at their places in the others' buffers.
    pub(crate) fn all_gather_registered<T: Element>(
        &mut self,
        call: Call,
        buffer: &mut RegisteredBuffer<T>,
    ) -> Result<(), Error> {
        self.directly(call, buffer, |group, buffer| {
            let part = call.count / group.world_size();
            let peers = group.registered_places::<T>(call, 0);
            for (peer, source) in peers.iter().enumerate().filter(|(peer, _)| *peer != group.rank) {
                let place = &mut buffer[peer * part..(peer + 1) * part];
                // SAFETY: every rank is inside this call, announced a buffer of `count` elements of `T`, and writes
                // only to the parts of others in its own.
                unsafe {
                    copy_out(source.add(peer * part).cast_mut().cast(), place.as_mut_ptr(), part);
                }
            }
        })
    }
}
