//! The collectives that combine values.

use super::Communicator;
use crate::arena::RegisteredBuffer;
use crate::call::{Call, Operation, Placement};
use crate::element::{Element, Reduction};
use crate::error::Error;
use crate::shared_memory::Counts;

impl Communicator {
    /// Replaces the buffer on every rank by the reduction of all ranks' buffers, without copying.
    pub fn all_reduce<T: Element>(
        &mut self,
        buffer: &mut RegisteredBuffer<T>,
        reduction: Reduction,
    ) -> Result<(), Error> {
        let call = self.reducing::<T>(Operation::AllReduce, buffer.len(), reduction)?;
        let call = Call { placement: Placement::Registered, ..call };
        self.run(size_of_val(&**buffer), |transport| transport.all_reduce_registered(call, buffer, reduction))
    }

    /// Replaces `data` on every rank by the reduction of all ranks' data, which may lie anywhere.
    pub fn all_reduce_staged<T: Element>(
        &mut self,
        data: &mut [T],
        reduction: Reduction,
    ) -> Result<(), Error> {
        let call = self.reducing::<T>(Operation::AllReduce, data.len(), reduction)?;
        self.run(size_of_val(data), |transport| transport.reduce_staged(call, data, reduction, None))
    }

    /// Replaces `data` of rank `root` by the reduction of all ranks' data; the others keep theirs.
    pub fn reduce<T: Element>(
        &mut self,
        data: &mut [T],
        reduction: Reduction,
        root: usize,
    ) -> Result<(), Error> {
        self.check_rank("reduce onto", root)?;
        let call = Call { root: Some(root), ..self.reducing::<T>(Operation::Reduce, data.len(), reduction)? };
        self.run(size_of_val(data), |transport| transport.reduce_staged(call, data, reduction, Some(root)))
    }

    /// Reduces `send` of all ranks and leaves part `rank` of the result in `receive`; `send` holds `world_size`
    /// times as much.
    pub fn reduce_scatter<T: Element>(
        &mut self,
        send: &[T],
        receive: &mut [T],
        reduction: Reduction,
    ) -> Result<(), Error> {
        self.check_parts(send.len(), receive.len())?;
        let call = self.reducing::<T>(Operation::ReduceScatter, send.len(), reduction)?;
        let counts = Counts::Even(receive.len());
        self.run(size_of_val(send), |transport| {
            transport.reduce_scatter(call, send, receive, counts, reduction)
        })
    }

    /// As [`Self::reduce_scatter`], where the part of rank `r` has `counts[r]` elements.
    pub fn reduce_scatter_v<T: Element>(
        &mut self,
        send: &[T],
        receive: &mut [T],
        counts: &[usize],
        reduction: Reduction,
    ) -> Result<(), Error> {
        self.check_counts("send", send.len(), counts)?;
        self.check_own_part("receive", receive.len(), counts)?;
        let call = self.reducing::<T>(Operation::ReduceScatterV, send.len(), reduction)?;
        let counts = Counts::Each(counts);
        self.run(size_of_val(send), |transport| {
            transport.reduce_scatter(call, send, receive, counts, reduction)
        })
    }

    /// Reduces the buffers of all ranks and leaves part `rank` of the result, of `world_size` equal ones, at its
    /// place in the buffer; the rest of it stays as it was.
    pub fn reduce_scatter_registered<T: Element>(
        &mut self,
        buffer: &mut RegisteredBuffer<T>,
        reduction: Reduction,
    ) -> Result<(), Error> {
        self.check_parts(buffer.len(), buffer.len() / self.world_size())?;
        let call = self.reducing::<T>(Operation::ReduceScatter, buffer.len(), reduction)?;
        let call = Call { placement: Placement::Registered, ..call };
        self.run(size_of_val(&**buffer), |transport| {
            transport.reduce_scatter_registered(call, buffer, reduction)
        })
    }
}
