//! The collectives that move values, and messages.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

use cudarc::nccl::sys::{cudaStream_t, ncclComm_t};
use muster_collectives::Element;

use super::{Communicator, data_type, number, pointer};
use crate::buffer::DeviceBuffer;
use crate::call::{Call, Peer};
use crate::error::Error;
use crate::library::Functions;
use crate::pending::Pending;
use crate::queue::Queue;
use crate::status::{SUCCESS, is_accepted};

impl<Q: Queue> Communicator<Q> {
    /// Copies the buffer of rank `root` to every rank.
    pub fn broadcast<T: Element>(
        &mut self,
        buffer: &mut DeviceBuffer<T, Q>,
        root: usize,
    ) -> Result<Pending<Q>, Error> {
        self.check_rank("broadcast from", root)?;
        let (count, data) = (buffer.len(), pointer(buffer.address()));
        let peer = Some(Peer::From(root));
        let call = Call { peer, ..self.blank::<T>("broadcast", count) };
        self.enqueue(call, &[buffer.memory()], |functions, communicator, stream| {
            // SAFETY: the buffer has so many elements, and lives until the call has ended.
            unsafe {
                (functions.broadcast)(data, data, count, data_type::<T>(), number(peer), communicator, stream)
            }
        })
    }

    /// Concatenates `send` of all ranks in rank order into `receive`, which holds `world_size` times as much.
    pub fn all_gather<T: Element>(
        &mut self,
        send: &DeviceBuffer<T, Q>,
        receive: &mut DeviceBuffer<T, Q>,
    ) -> Result<Pending<Q>, Error> {
        self.check_parts("all_gather", receive.len(), send.len())?;
        let (from, to, count) = (pointer(send.address()), pointer(receive.address()), send.len());
        let call = self.blank::<T>("all_gather", count);
        self.enqueue(call, &[send.memory(), receive.memory()], |functions, communicator, stream| {
            // SAFETY: the buffers have so many elements, times the ranks for `receive`, and live until the call has ended.
            unsafe { (functions.all_gather)(from, to, count, data_type::<T>(), communicator, stream) }
        })
    }

    /// Concatenates `send` of all ranks in rank order into `receive` of rank `root`, which holds `world_size` times as
    /// much. The others may pass an empty `receive`.
    pub fn gather<T: Element>(
        &mut self,
        send: &DeviceBuffer<T, Q>,
        receive: &mut DeviceBuffer<T, Q>,
        root: usize,
    ) -> Result<Pending<Q>, Error> {
        self.check_rank("gather to", root)?;
        let is_root = self.rank() == root;
        if is_root {
            self.check_parts("gather", receive.len(), send.len())?;
        }
        let call = Call { peer: Some(Peer::To(root)), ..self.blank::<T>("gather", send.len()) };
        let ranks = if is_root { self.world_size() } else { 0 };
        let (from, to, part) = (send.address(), receive.address(), send.len());
        let parts = Parts::<T>::new(part);
        let transfers = std::iter::once(Transfer::Send { address: from, to: root })
            .chain((0..ranks).map(|rank| Transfer::Receive { address: parts.at(to, rank), from: rank }));
        self.transfer(call, send, receive, parts, transfers)
    }

    /// Gives each rank in `receive` its part of `send` of rank `root`, which holds `world_size` times as much. The
    /// others may pass an empty `send`.
    pub fn scatter<T: Element>(
        &mut self,
        send: &DeviceBuffer<T, Q>,
        receive: &mut DeviceBuffer<T, Q>,
        root: usize,
    ) -> Result<Pending<Q>, Error> {
        self.check_rank("scatter from", root)?;
        let is_root = self.rank() == root;
        if is_root {
            self.check_parts("scatter", send.len(), receive.len())?;
        }
        let call = Call { peer: Some(Peer::From(root)), ..self.blank::<T>("scatter", receive.len()) };
        let ranks = if is_root { self.world_size() } else { 0 };
        let (from, to, part) = (send.address(), receive.address(), receive.len());
        let parts = Parts::<T>::new(part);
        let transfers = (0..ranks)
            .map(|rank| Transfer::Send { address: parts.at(from, rank), to: rank })
            .chain(std::iter::once(Transfer::Receive { address: to, from: root }));
        self.transfer(call, send, receive, parts, transfers)
    }

    /// Sends part `r` of `send` to rank `r` and puts what rank `r` sends here into part `r` of `receive`; both hold
    /// `world_size` equal parts.
    pub fn all_to_all<T: Element>(
        &mut self,
        send: &DeviceBuffer<T, Q>,
        receive: &mut DeviceBuffer<T, Q>,
    ) -> Result<Pending<Q>, Error> {
        let part = receive.len() / self.world_size();
        self.check_parts("all_to_all", receive.len(), part)?;
        self.check_parts("all_to_all", send.len(), part)?;
        let call = self.blank::<T>("all_to_all", send.len());
        let (from, to, ranks) = (send.address(), receive.address(), self.world_size());
        let parts = Parts::<T>::new(part);
        let transfers = (0..ranks).flat_map(|rank| {
            [
                Transfer::Send { address: parts.at(from, rank), to: rank },
                Transfer::Receive { address: parts.at(to, rank), from: rank },
            ]
        });
        self.transfer(call, send, receive, parts, transfers)
    }

    /// Passes the buffer to rank `to`, which must [`receive`](Self::receive) it. Other ranks take no part.
    pub fn send<T: Element>(&mut self, buffer: &DeviceBuffer<T, Q>, to: usize) -> Result<Pending<Q>, Error> {
        self.check_peer("send to", to)?;
        let call = Call { peer: Some(Peer::To(to)), ..self.blank::<T>("send", buffer.len()) };
        let parts = Parts::<T>::new(buffer.len());
        let transfer = Transfer::Send { address: buffer.address(), to };
        self.enqueue(call, &[buffer.memory()], |functions, communicator, stream| {
            // SAFETY: the buffer has so many elements, and lives until the call has ended.
            unsafe { transfer.make(parts, functions, communicator, stream) }
        })
    }

    /// Takes what rank `from` sends next, which must have as many elements as the buffer.
    pub fn receive<T: Element>(
        &mut self,
        buffer: &mut DeviceBuffer<T, Q>,
        from: usize,
    ) -> Result<Pending<Q>, Error> {
        self.check_peer("receive from", from)?;
        let call = Call { peer: Some(Peer::From(from)), ..self.blank::<T>("receive", buffer.len()) };
        let parts = Parts::<T>::new(buffer.len());
        let transfer = Transfer::Receive { address: buffer.address(), from };
        self.enqueue(call, &[buffer.memory()], |functions, communicator, stream| {
            // SAFETY: the buffer has so many elements, and lives until the call has ended.
            unsafe { transfer.make(parts, functions, communicator, stream) }
        })
    }

    /// Makes transfers between the parts of two buffers at once, as one call.
    fn transfer<T: Element>(
        &mut self,
        call: Call,
        send: &DeviceBuffer<T, Q>,
        receive: &DeviceBuffer<T, Q>,
        parts: Parts<T>,
        transfers: impl Iterator<Item = Transfer>,
    ) -> Result<Pending<Q>, Error> {
        self.enqueue(call, &[send.memory(), receive.memory()], |functions, communicator, stream| {
            // SAFETY: no arguments; the lock that the caller holds keeps the group of calls on this thread together.
            let started = unsafe { (functions.group_start)() };
            if !is_accepted(started) {
                return started;
            }
            let mut code = SUCCESS;
            for transfer in transfers {
                // SAFETY: the parts lie inside the buffers, whose lengths were checked, and live until the call has ended.
                code = unsafe { transfer.make(parts, functions, communicator, stream) };
                if !is_accepted(code) {
                    break;
                }
            }
            // SAFETY: as above. Every start has its end, whatever happened between them.
            let ended = unsafe { (functions.group_end)() };
            if is_accepted(code) { ended } else { code }
        })
    }

    /// NCCL lets a rank send to itself only in a group of calls, and waits for ever otherwise.
    fn check_peer(&self, what: &str, rank: usize) -> Result<(), Error> {
        self.check_rank(what, rank)?;
        if rank == self.rank() {
            return Err(Error::InvalidArgument(format!("cannot {what} rank {rank}: that is this rank")));
        }
        Ok(())
    }
}

/// Equal parts of a buffer.
#[derive(Debug)]
struct Parts<T> {
    count: usize,
    elements: std::marker::PhantomData<T>,
}

impl<T> Clone for Parts<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Parts<T> {}

impl<T: Element> Parts<T> {
    fn new(count: usize) -> Self {
        Self { count, elements: std::marker::PhantomData }
    }

    fn at(self, address: u64, index: usize) -> u64 {
        address + (index * self.count * size_of::<T>()) as u64
    }
}

/// A part's way to or from a rank.
#[derive(Clone, Copy, Debug)]
enum Transfer {
    Send { address: u64, to: usize },
    Receive { address: u64, from: usize },
}

impl Transfer {
    /// # Safety
    ///
    /// A part must lie at the address until the call has ended, and the communicator must be live.
    unsafe fn make<T: Element>(
        self,
        parts: Parts<T>,
        functions: &Functions,
        communicator: ncclComm_t,
        stream: cudaStream_t,
    ) -> c_int {
        let (count, data_type) = (parts.count, data_type::<T>());
        match self {
            Self::Send { address, to } => {
                let data: *const c_void = pointer(address);
                // SAFETY: the caller's promise.
                unsafe { (functions.send)(data, count, data_type, to as c_int, communicator, stream) }
            }
            Self::Receive { address, from } => {
                // SAFETY: the caller's promise.
                unsafe {
                    (functions.receive)(
                        pointer(address),
                        count,
                        data_type,
                        from as c_int,
                        communicator,
                        stream,
                    )
                }
            }
        }
    }
}
