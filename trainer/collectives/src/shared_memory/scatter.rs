//! Scatter and all-to-all: each rank gets a part of its own.

#![allow(unsafe_code)]

use super::SharedMemory;
use super::parts::{Counts, Layout, copy_in, copy_out};
use crate::call::Call;
use crate::element::Element;
use crate::error::Error;

impl SharedMemory {
    /// Gives each rank its part of what `root` sends. `counts` says on the root how long the parts are.
    pub(crate) fn scatter<T: Element>(
        &mut self,
        call: Call,
        send: &[T],
        receive: &mut [T],
        counts: Counts<'_>,
        root: usize,
    ) -> Result<(), Error> {
        let (rank, world_size) = (self.rank, self.world_size());
        if rank == root && counts.of(root) == receive.len() {
            receive.copy_from_slice(&send[counts.place(root, &(0..receive.len()))]);
        }
        let layout = Layout::new::<T>(world_size, 1);
        let mut longest = 0;
        self.in_pieces_until(call, layout.largest, |group, piece, first| {
            let slot = group.arena.slot(root, group.turn);
            if rank == root {
                // SAFETY: tables and parts fit a slot, and no peer reads this slot before the step below.
                unsafe {
                    layout.write_table(slot, 0, |peer| counts.of(peer));
                    for peer in (0..world_size).filter(|peer| *peer != root) {
                        let part = &send[counts.place(peer, &piece)];
                        copy_in(part.as_ptr(), part.len(), layout.part::<T>(slot, peer));
                    }
                }
            }
            group.meet(call, first)?;
            if first {
                // SAFETY: the root filled its slot before the step.
                let table = unsafe { layout.read_table(slot, 0) };
                for (peer, sent) in table.into_iter().enumerate() {
                    let expected = group.announced_count(peer, call);
                    longest = longest.max(expected);
                    if sent != expected {
                        return Err(group.fail_parts(root, peer, sent, expected, call));
                    }
                }
            }
            if rank != root {
                let end = receive.len();
                let place = &mut receive[piece.start.min(end)..piece.end.min(end)];
                // SAFETY: as above.
                unsafe { copy_out(layout.part::<T>(slot, rank), place.as_mut_ptr(), place.len()) };
            }
            Ok(longest)
        })
    }

    /// Gives each rank its part of what every rank sends.
    pub(crate) fn all_to_all<T: Element>(
        &mut self,
        call: Call,
        (send, send_counts): (&[T], Counts<'_>),
        (receive, receive_counts): (&mut [T], Counts<'_>),
    ) -> Result<(), Error> {
        let (rank, world_size) = (self.rank, self.world_size());
        let layout = Layout::new::<T>(world_size, 2);
        let mut longest = 0;
        self.in_pieces_until(call, layout.largest, |group, piece, first| {
            let own = group.arena.slot(rank, group.turn);
            // SAFETY: tables and parts fit a slot, and no peer reads this slot before the step below.
            unsafe {
                layout.write_table(own, 0, |peer| send_counts.of(peer));
                layout.write_table(own, 1, |peer| receive_counts.of(peer));
                for peer in (0..world_size).filter(|peer| *peer != rank) {
                    let part = &send[send_counts.place(peer, &piece)];
                    copy_in(part.as_ptr(), part.len(), layout.part::<T>(own, peer));
                }
            }
            group.meet(call, first)?;
            if first {
                longest = group.check_matrix(layout, call)?;
                let whole = 0..receive_counts.of(rank);
                receive[receive_counts.place(rank, &whole)]
                    .copy_from_slice(&send[send_counts.place(rank, &whole)]);
            }
            for peer in (0..world_size).filter(|peer| *peer != rank) {
                let place = &mut receive[receive_counts.place(peer, &piece)];
                let part = layout.part::<T>(group.arena.slot(peer, group.turn), rank);
                // SAFETY: the peer filled its slot before the step.
                unsafe { copy_out(part, place.as_mut_ptr(), place.len()) };
            }
            Ok(longest)
        })
    }

    /// Checks on every rank that all ranks expect what the others send; gives the longest part.
    fn check_matrix(&self, layout: Layout, call: Call) -> Result<usize, Error> {
        // SAFETY: every rank filled its slot of this turn before the last step.
        let tables = |table| unsafe {
            (0..self.world_size())
                .map(|peer| layout.read_table(self.arena.slot(peer, self.turn), table))
                .collect::<Vec<_>>()
        };
        let (sent, expected) = (tables(0), tables(1));
        let mut longest = 0;
        for (from, row) in sent.iter().enumerate() {
            for (to, sent) in row.iter().enumerate() {
                longest = longest.max(*sent);
                if expected[to][from] != *sent {
                    return Err(self.fail_parts(from, to, *sent, expected[to][from], call));
                }
            }
        }
        Ok(longest)
    }
}
