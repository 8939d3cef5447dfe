//! The collectives that combine values.
#![allow(unsafe_code)]

use muster_collectives::{Element, Reduction};

use super::{Communicator, data_type, number, operation, pointer};
use crate::buffer::DeviceBuffer;
use crate::call::{Call, Peer};
use crate::error::Error;
use crate::pending::Pending;
use crate::queue::Queue;

impl<Q: Queue> Communicator<Q> {
    /// Replaces the buffer on every rank by the reduction of all ranks' buffers.
    pub fn all_reduce<T: Element>(
        &mut self,
        buffer: &mut DeviceBuffer<T, Q>,
        reduction: Reduction,
    ) -> Result<Pending<Q>, Error> {
        let operation = operation(reduction)?;
        let (count, data) = (buffer.len(), pointer(buffer.address()));
        let call = Call { reduction: Some(reduction), ..self.blank::<T>("all_reduce", count) };
        self.enqueue(call, &[buffer.memory()], |functions, communicator, stream| {
            // SAFETY: the buffer has so many elements, and lives until the call has ended.
            unsafe {
                (functions.all_reduce)(data, data, count, data_type::<T>(), operation, communicator, stream)
            }
        })
    }

    /// Replaces the buffer of rank `root` by the reduction of all ranks' buffers; the others keep theirs.
    pub fn reduce<T: Element>(
        &mut self,
        buffer: &mut DeviceBuffer<T, Q>,
        reduction: Reduction,
        root: usize,
    ) -> Result<Pending<Q>, Error> {
        self.check_rank("reduce to", root)?;
        let operation = operation(reduction)?;
        let (count, data) = (buffer.len(), pointer(buffer.address()));
        let peer = Some(Peer::To(root));
        let call = Call { reduction: Some(reduction), peer, ..self.blank::<T>("reduce", count) };
        self.enqueue(call, &[buffer.memory()], |functions, communicator, stream| {
            let (data_type, root) = (data_type::<T>(), number(peer));
            // SAFETY: the buffer has so many elements, and lives until the call has ended.
            unsafe { (functions.reduce)(data, data, count, data_type, operation, root, communicator, stream) }
        })
    }

    /// Reduces `send` of all ranks and leaves part `rank` of the result in `receive`; `send` holds `world_size` times
    /// as much.
    pub fn reduce_scatter<T: Element>(
        &mut self,
        send: &DeviceBuffer<T, Q>,
        receive: &mut DeviceBuffer<T, Q>,
        reduction: Reduction,
    ) -> Result<Pending<Q>, Error> {
        self.check_parts("reduce_scatter", send.len(), receive.len())?;
        let operation = operation(reduction)?;
        let (from, to, count) = (pointer(send.address()), pointer(receive.address()), receive.len());
        let call = Call { reduction: Some(reduction), ..self.blank::<T>("reduce_scatter", send.len()) };
        self.enqueue(call, &[send.memory(), receive.memory()], |functions, communicator, stream| {
            // SAFETY: the buffers have so many elements, times the ranks for `send`, and live until the call has ended.
            unsafe {
                (functions.reduce_scatter)(from, to, count, data_type::<T>(), operation, communicator, stream)
            }
        })
    }
}
