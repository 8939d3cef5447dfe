//! Messages between two ranks, which the others take no part in.

#![allow(unsafe_code)]

use super::SharedMemory;
use super::parts::{copy_in, copy_out};
use crate::call::{Call, Operation};
use crate::channel::CHANNEL_SLOT;
use crate::control::Failure;
use crate::element::Element;
use crate::error::Error;

/// How far the messages with one rank have come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    sent_messages: u64,
    sent_pieces: u32,
    received_messages: u64,
    received_pieces: u32,
}

impl SharedMemory {
    /// Passes a message to rank `to`; returns when all of it is in the channel, whose slots hold the last two pieces.
    pub(crate) fn send<T: Element>(&mut self, call: Call, data: &[T], to: usize) -> Result<(), Error> {
        let call = Call { index: self.channels[to].sent_messages, operation: Operation::Send, ..call };
        self.check_failure(call)?;
        let mut since = None;
        for start in piece_starts::<T>(data.len()) {
            let channel = self.arena.channel(self.rank, to);
            let piece = self.channels[to].sent_pieces;
            // The slot is free once the piece before the last was taken.
            self.wait(channel.taken(), piece.wrapping_sub(1), to, call, &mut since)?;
            let part = &data[start..data.len().min(start + largest::<T>())];
            channel.announce_send(piece, call.to_words());
            // SAFETY: the part fits the slot, which the receiver reads only after the next line.
            unsafe { copy_in(part.as_ptr(), part.len(), channel.slot(piece)) };
            channel.sent().advance(piece.wrapping_add(1));
            self.channels[to].sent_pieces = piece.wrapping_add(1);
        }
        self.channels[to].sent_messages += 1;
        Ok(())
    }

    /// Takes the next message of rank `from`, which must be as long as `data`.
    pub(crate) fn receive<T: Element>(
        &mut self,
        call: Call,
        data: &mut [T],
        from: usize,
    ) -> Result<(), Error> {
        let call =
            Call { index: self.channels[from].received_messages, operation: Operation::Receive, ..call };
        self.check_failure(call)?;
        let mut since = None;
        for start in piece_starts::<T>(data.len()) {
            let channel = self.arena.channel(from, self.rank);
            let piece = self.channels[from].received_pieces;
            self.wait(channel.sent(), piece.wrapping_add(1), from, call, &mut since)?;
            if !call.receives(channel.announced_send(piece)) {
                channel.announce_receive(piece, call.to_words());
                let slot = (piece & 1) as usize;
                return Err(self.fail(Failure::Message { from, to: self.rank, slot }, call));
            }
            let end = data.len().min(start + largest::<T>());
            let part = &mut data[start..end];
            // SAFETY: the sender filled the slot and leaves it alone until it was taken.
            unsafe { copy_out(channel.slot(piece), part.as_mut_ptr(), part.len()) };
            channel.taken().advance(piece.wrapping_add(1));
            self.channels[from].received_pieces = piece.wrapping_add(1);
        }
        self.channels[from].received_messages += 1;
        Ok(())
    }
}

fn largest<T>() -> usize {
    CHANNEL_SLOT / size_of::<T>()
}

/// Where the pieces of a message begin; an empty one has one piece.
fn piece_starts<T>(count: usize) -> impl Iterator<Item = usize> {
    (0..count.max(1)).step_by(largest::<T>())
}
