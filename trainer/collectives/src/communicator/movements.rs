//! The collectives that move values, and messages.

use super::Communicator;
use crate::arena::RegisteredBuffer;
use crate::call::{Call, Operation, Placement};
use crate::element::Element;
use crate::error::Error;
use crate::shared_memory::Counts;

impl Communicator {
    /// Copies `data` of rank `root` to every rank.
    pub fn broadcast<T: Element>(&mut self, data: &mut [T], root: usize) -> Result<(), Error> {
        self.check_rank("broadcast from", root)?;
        let call = Call { root: Some(root), ..self.moving::<T>(Operation::Broadcast, data.len()) };
        self.run(size_of_val(data), |transport| transport.broadcast(call, data, root))
    }

    /// Concatenates `send` of all ranks in rank order into `receive`, which holds `world_size` times as much.
    pub fn all_gather<T: Element>(&mut self, send: &[T], receive: &mut [T]) -> Result<(), Error> {
        self.check_parts(receive.len(), send.len())?;
        let call = self.moving::<T>(Operation::AllGather, send.len());
        let counts = Counts::Even(send.len());
        self.run(size_of_val(send), |transport| transport.gather(call, send, receive, counts, None))
    }

    /// Concatenates `send` of all ranks in rank order into `receive`; rank `r` sends `counts[r]` elements.
    pub fn all_gather_v<T: Element>(
        &mut self,
        send: &[T],
        receive: &mut [T],
        counts: &[usize],
    ) -> Result<(), Error> {
        self.check_counts("receive", receive.len(), counts)?;
        self.check_own_part("send", send.len(), counts)?;
        let call = self.moving::<T>(Operation::AllGatherV, send.len());
        let counts = Counts::Each(counts);
        self.run(size_of_val(send), |transport| transport.gather(call, send, receive, counts, None))
    }

    /// Fills the whole buffer on every rank, where it lies: part `r` of it, of `world_size` equal ones, comes from
    /// rank `r`.
    pub fn all_gather_registered<T: Element>(
        &mut self,
        buffer: &mut RegisteredBuffer<T>,
    ) -> Result<(), Error> {
        self.check_parts(buffer.len(), buffer.len() / self.world_size())?;
        let call = self.moving::<T>(Operation::AllGather, buffer.len());
        let call = Call { placement: Placement::Registered, ..call };
        self.run(size_of_val(&**buffer), |transport| transport.all_gather_registered(call, buffer))
    }

    /// Concatenates `send` of all ranks in rank order into `receive` of rank `root`, which holds `world_size` times
    /// as much. The others may pass an empty `receive`.
    pub fn gather<T: Element>(&mut self, send: &[T], receive: &mut [T], root: usize) -> Result<(), Error> {
        self.check_rank("gather to", root)?;
        if self.rank() == root {
            self.check_parts(receive.len(), send.len())?;
        }
        let call = Call { root: Some(root), ..self.moving::<T>(Operation::Gather, send.len()) };
        let counts = Counts::Even(send.len());
        self.run(size_of_val(send), |transport| transport.gather(call, send, receive, counts, Some(root)))
    }

    /// As [`Self::gather`], where rank `r` sends `counts[r]` elements. Only rank `root` need know the counts.
    pub fn gather_v<T: Element>(
        &mut self,
        send: &[T],
        receive: &mut [T],
        counts: &[usize],
        root: usize,
    ) -> Result<(), Error> {
        self.check_rank("gather to", root)?;
        if self.rank() == root {
            self.check_counts("receive", receive.len(), counts)?;
            self.check_own_part("send", send.len(), counts)?;
        }
        let call = Call { root: Some(root), ..self.moving::<T>(Operation::GatherV, send.len()) };
        let counts = Counts::Each(counts);
        self.run(size_of_val(send), |transport| transport.gather(call, send, receive, counts, Some(root)))
    }

    /// Gives each rank in `receive` its part of `send` of rank `root`, which holds `world_size` times as much. The
    /// others may pass an empty `send`.
    pub fn scatter<T: Element>(&mut self, send: &[T], receive: &mut [T], root: usize) -> Result<(), Error> {
        self.check_rank("scatter from", root)?;
        if self.rank() == root {
            self.check_parts(send.len(), receive.len())?;
        }
        let call = Call { root: Some(root), ..self.moving::<T>(Operation::Scatter, receive.len()) };
        let counts = Counts::Even(receive.len());
        self.run(size_of_val(send), |transport| transport.scatter(call, send, receive, counts, root))
    }

    /// As [`Self::scatter`], where rank `r` gets `counts[r]` elements. Only rank `root` need know the counts.
    pub fn scatter_v<T: Element>(
        &mut self,
        send: &[T],
        counts: &[usize],
        receive: &mut [T],
        root: usize,
    ) -> Result<(), Error> {
        self.check_rank("scatter from", root)?;
        if self.rank() == root {
            self.check_counts("send", send.len(), counts)?;
            self.check_own_part("receive", receive.len(), counts)?;
        }
        let call = Call { root: Some(root), ..self.moving::<T>(Operation::ScatterV, receive.len()) };
        let counts = Counts::Each(counts);
        self.run(size_of_val(send), |transport| transport.scatter(call, send, receive, counts, root))
    }

    /// Sends part `r` of `send` to rank `r` and puts what rank `r` sends here into part `r` of `receive`; both hold
    /// `world_size` equal parts.
    pub fn all_to_all<T: Element>(&mut self, send: &[T], receive: &mut [T]) -> Result<(), Error> {
        let part = receive.len() / self.world_size();
        self.check_parts(receive.len(), part)?;
        self.check_parts(send.len(), part)?;
        let call = self.moving::<T>(Operation::AllToAll, send.len());
        let counts = Counts::Even(part);
        self.run(size_of_val(send), |transport| transport.all_to_all(call, (send, counts), (receive, counts)))
    }

    /// As [`Self::all_to_all`], where `send_counts[r]` elements go to rank `r` and `receive_counts[r]` come from it.
    pub fn all_to_all_v<T: Element>(
        &mut self,
        send: &[T],
        send_counts: &[usize],
        receive: &mut [T],
        receive_counts: &[usize],
    ) -> Result<(), Error> {
        self.check_counts("send", send.len(), send_counts)?;
        self.check_counts("receive", receive.len(), receive_counts)?;
        let call = self.moving::<T>(Operation::AllToAllV, send.len());
        let (sent, received) = (Counts::Each(send_counts), Counts::Each(receive_counts));
        self.run(size_of_val(send), |transport| transport.all_to_all(call, (send, sent), (receive, received)))
    }

    /// Passes a message to rank `to`, which must [`receive`](Self::receive) it. Short messages are buffered; longer
    /// ones wait for the receiver. Other ranks take no part.
    pub fn send<T: Element>(&mut self, data: &[T], to: usize) -> Result<(), Error> {
        self.check_peer("send to", to)?;
        let call = Call { root: Some(to), ..self.moving::<T>(Operation::Send, data.len()) };
        self.time(size_of_val(data), |transport| transport.send(call, data, to))
    }

    /// Takes the next message of rank `from`, which must have as many elements as `data`.
    pub fn receive<T: Element>(&mut self, data: &mut [T], from: usize) -> Result<(), Error> {
        self.check_peer("receive from", from)?;
        let call = Call { root: Some(from), ..self.moving::<T>(Operation::Receive, data.len()) };
        self.time(0, |transport| transport.receive(call, data, from))
    }
}
