//! Reduce-scatter: each rank gets a part of the reduction.

#![allow(unsafe_code)]

use smallvec::SmallVec;

use super::SharedMemory;
use super::parts::{Counts, Layout, copy_in};
use crate::arena::RegisteredBuffer;
use crate::call::Call;
use crate::element::{Element, Reduction};
use crate::error::Error;
use crate::kernels;

impl SharedMemory {
    /// Reduces what all ranks send and leaves this rank its part.
    pub(crate) fn reduce_scatter<T: Element>(
        &mut self,
        call: Call,
        send: &[T],
        receive: &mut [T],
        counts: Counts<'_>,
        reduction: Reduction,
    ) -> Result<(), Error> {
        let (rank, world_size) = (self.rank, self.world_size());
        let layout = Layout::new::<T>(world_size, 1);
        let longest = (0..world_size).map(|peer| counts.of(peer)).max().unwrap_or(0);
        self.in_pieces_until(call, layout.largest, |group, piece, first| {
            let own = group.arena.slot(rank, group.turn);
            // SAFETY: tables and parts fit a slot, and no peer reads this slot before the step below.
            unsafe {
                layout.write_table(own, 0, |peer| counts.of(peer));
                for peer in (0..world_size).filter(|peer| *peer != rank) {
                    let part = &send[counts.place(peer, &piece)];
                    copy_in(part.as_ptr(), part.len(), layout.part::<T>(own, peer));
                }
            }
            group.meet(call, first)?;
            if first {
                group.check_agreement(layout, counts, call)?;
            }
            let place = &mut receive[piece.start.min(counts.of(rank))..piece.end.min(counts.of(rank))];
            let mut sources: SmallVec<[*const T; 16]> = (0..world_size)
                .map(|peer| layout.part::<T>(group.arena.slot(peer, group.turn), rank).cast_const().cast())
                .collect();
            sources[rank] = send[counts.place(rank, &piece)].as_ptr();
            // SAFETY: all slots were filled before the step, and the result goes to our own memory.
            unsafe { kernels::reduce(reduction, &sources, &[place.as_mut_ptr()], place.len()) };
            Ok(longest)
        })
    }

    /// Checks that all ranks cut their data alike.
    fn check_agreement(&self, layout: Layout, counts: Counts<'_>, call: Call) -> Result<(), Error> {
        for peer in 0..self.world_size() {
            // SAFETY: the peer filled its slot of this turn before the last step.
            let table = unsafe { layout.read_table(self.arena.slot(peer, self.turn), 0) };
            for (to, sent) in table.into_iter().enumerate() {
                if sent != counts.of(to) {
                    return Err(self.fail_parts(peer, to, sent, counts.of(to), call));
                }
            }
        }
        Ok(())
    }

    /// Reduces this rank's part of all buffers into its place in this rank's buffer; the rest stays as it was.
    pub(crate) fn reduce_scatter_registered<T: Element>(
        &mut self,
        call: Call,
        buffer: &mut RegisteredBuffer<T>,
        reduction: Reduction,
    ) -> Result<(), Error> {
        self.directly(call, buffer, |group, buffer| {
            let part = call.count / group.world_size();
            let sources = group.registered_places::<T>(call, group.rank * part);
            let destination = buffer[group.rank * part..].as_mut_ptr();
            // SAFETY: every rank is inside this call and announced a buffer of `count` elements of `T`. Nobody else
            // reads or writes this part of them; one source is the destination.
            unsafe { kernels::reduce(reduction, &sources, &[destination], part) };
        })
    }
}
