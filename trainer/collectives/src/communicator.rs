//! The typed face of a group: checks arguments, numbers the calls and counts the traffic.

use std::time::{Duration, Instant};

use crate::arena::RegisteredBuffer;
use crate::call::{Call, Operation, Placement};
use crate::element::{Element, Reduction};
use crate::error::Error;
use crate::options::Options;
use crate::shared_memory::SharedMemory;

/// A rank's handle on its group. All ranks must make the same calls in the same order.
///
/// Dropping it leaves the group; ranks that still wait for this one then get [`Error::PeerLost`].
#[derive(Debug)]
pub struct Communicator {
    transport: SharedMemory,
    calls: u64,
    traffic: Traffic,
}

/// What a communicator has moved so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Collective calls that ended well.
    pub calls: u64,
    /// Bytes this rank passed into them.
    pub bytes: u64,
    /// Time spent in them, waiting for slower ranks included.
    pub time: Duration,
}

impl Communicator {
    /// Forms the group over shared memory: returns on all ranks once every rank has mapped all memory.
    pub fn connect(options: &Options) -> Result<Self, Error> {
        options.validate()?;
        let transport = SharedMemory::join(options)?;
        let mut communicator = Self { transport, calls: 0, traffic: Traffic::default() };
        communicator.barrier()?;
        tracing::debug!(
            rank = options.rank,
            world_size = options.world_size,
            group = options.group,
            "joined"
        );
        communicator.traffic = Traffic::default();
        Ok(communicator)
    }

    /// This process's rank.
    pub fn rank(&self) -> usize {
        self.transport.rank()
    }

    /// The number of ranks.
    pub fn world_size(&self) -> usize {
        self.transport.world_size()
    }

    /// How the ranks' hosts call themselves, in rank order.
    pub fn hosts(&self) -> &[String] {
        self.transport.hosts()
    }

    /// A number, equal on all ranks, that tells this group from every earlier one.
    pub fn session(&self) -> u64 {
        self.transport.session()
    }

    /// What has been moved so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// A zeroed buffer in shared memory. No collective: ranks may allocate in any order and at any time.
    pub fn allocate<T: Element>(&self, count: usize) -> Result<RegisteredBuffer<T>, Error> {
        self.transport.allocate(count)
    }

    /// Returns once every rank has called it.
    pub fn barrier(&mut self) -> Result<(), Error> {
        let call = Call { operation: Operation::Barrier, ..self.blank() };
        self.run(0, |transport| transport.barrier(call))
    }

    /// Replaces the buffer on every rank by the reduction of all ranks' buffers, without copying.
    pub fn all_reduce<T: Element>(
        &mut self,
        buffer: &mut RegisteredBuffer<T>,
        reduction: Reduction,
    ) -> Result<(), Error> {
        let call = Call { placement: Placement::Registered, ..self.all_reduce_call(buffer, reduction) };
        self.run(size_of_val(&**buffer), |transport| transport.all_reduce_registered(call, buffer, reduction))
    }

    /// Replaces `data` on every rank by the reduction of all ranks' data, which may lie anywhere.
    pub fn all_reduce_staged<T: Element>(
        &mut self,
        data: &mut [T],
        reduction: Reduction,
    ) -> Result<(), Error> {
        let call = self.all_reduce_call(data, reduction);
        self.run(size_of_val(data), |transport| transport.all_reduce_staged(call, data, reduction))
    }

    /// Copies `data` of rank `root` to every rank.
    pub fn broadcast<T: Element>(&mut self, data: &mut [T], root: usize) -> Result<(), Error> {
        if root >= self.world_size() {
            let message = format!("cannot broadcast from rank {root} in a group of {}", self.world_size());
            return Err(Error::InvalidArgument(message));
        }
        let call = Call {
            operation: Operation::Broadcast,
            data_type: Some(T::DATA_TYPE),
            count: data.len(),
            root: Some(root),
            ..self.blank()
        };
        self.run(size_of_val(data), |transport| transport.broadcast(call, data, root))
    }

    /// Concatenates `send` of all ranks in rank order into `receive`, which holds `world_size` times as much.
    pub fn all_gather<T: Element>(&mut self, send: &[T], receive: &mut [T]) -> Result<(), Error> {
        self.check_parts(receive.len(), send.len())?;
        let call = Call {
            operation: Operation::AllGather,
            data_type: Some(T::DATA_TYPE),
            count: send.len(),
            ..self.blank()
        };
        self.run(size_of_val(send), |transport| transport.all_gather(call, send, receive))
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
        let call = Call {
            operation: Operation::ReduceScatter,
            data_type: Some(T::DATA_TYPE),
            count: send.len(),
            reduction: Some(reduction),
            ..self.blank()
        };
        self.run(size_of_val(send), |transport| transport.reduce_scatter(call, send, receive, reduction))
    }

    fn check_parts(&self, whole: usize, part: usize) -> Result<(), Error> {
        if part.checked_mul(self.world_size()) == Some(whole) {
            return Ok(());
        }
        let message = format!("{whole} elements are not {} parts of {part}", self.world_size());
        Err(Error::InvalidArgument(message))
    }

    fn blank(&self) -> Call {
        Call {
            index: self.calls,
            operation: Operation::Barrier,
            data_type: None,
            count: 0,
            reduction: None,
            root: None,
            placement: Placement::Staged,
        }
    }

    fn all_reduce_call<T: Element>(&self, data: &[T], reduction: Reduction) -> Call {
        Call {
            operation: Operation::AllReduce,
            data_type: Some(T::DATA_TYPE),
            count: data.len(),
            reduction: Some(reduction),
            ..self.blank()
        }
    }

    fn run(
        &mut self,
        bytes: usize,
        work: impl FnOnce(&mut SharedMemory) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let began = Instant::now();
        work(&mut self.transport)?;
        self.calls += 1;
        self.traffic.calls += 1;
        self.traffic.bytes += bytes as u64;
        self.traffic.time += began.elapsed();
        Ok(())
    }
}
