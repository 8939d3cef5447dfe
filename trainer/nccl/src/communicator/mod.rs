//! The communicator that user code calls.
#![allow(unsafe_code)]

mod groups;
mod movements;
mod reductions;

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use cudarc::nccl::sys::{cudaStream_t, ncclComm_t, ncclDataType_t};
use muster_collectives::{DataType, Element, Reduction};

use crate::aborter::Aborter;
use crate::buffer::{DeviceBuffer, Memory};
use crate::call::{Call, Peer};
use crate::cuda::Cuda;
use crate::error::Error;
use crate::group::{Failure, Group};
use crate::library::Functions;
use crate::pending::Pending;
use crate::queue::{DeviceError, Queue, wait_for_mark};

pub use groups::Joining;

/// A rank's part of a group of GPUs. All ranks make the same calls in the same order; each call is given to the stream
/// of the communicator and returns before it has ended. (The first calls also make NCCL's connections, and return when
/// the ranks concerned have come to them.)
///
/// Where a buffer belongs to another stream, the call waits for what that one was given before, and what it is given
/// afterwards waits for the call.
///
/// Dropping a communicator closes it, which waits for its calls; where one has failed, or the thread panics, it ends at
/// once.
#[derive(Debug)]
pub struct Communicator<Q: Queue = Cuda> {
    group: Arc<Group<Q>>,
    calls: u64,
}

impl<Q: Queue> Communicator<Q> {
    /// This rank.
    pub fn rank(&self) -> usize {
        self.group.options.rank
    }

    /// The number of ranks.
    pub fn world_size(&self) -> usize {
        self.group.options.world_size
    }

    /// The stream of its calls.
    pub fn queue(&self) -> &Q {
        &self.group.queue
    }

    /// A way to end the group from another thread.
    pub fn aborter(&self) -> Aborter {
        Aborter::new(&self.group)
    }

    /// A zeroed buffer on this rank's device.
    pub fn allocate<T: Element>(&self, count: usize) -> Result<DeviceBuffer<T, Q>, Error> {
        let allocated = DeviceBuffer::zeroed(&self.group.queue, count);
        allocated.map_err(|source| self.group.device_error(&"allocate", source))
    }

    /// A buffer with these elements.
    pub fn upload<T: Element>(&self, data: &[T]) -> Result<DeviceBuffer<T, Q>, Error> {
        let mut buffer = self.allocate(data.len())?;
        self.write(data, &mut buffer)?;
        Ok(buffer)
    }

    /// Copies elements to the device, when what the buffer is used for has ended.
    pub fn write<T: Element>(&self, data: &[T], buffer: &mut DeviceBuffer<T, Q>) -> Result<(), Error> {
        check_count("write", data.len(), buffer.len())?;
        let queue = &buffer.memory().queue;
        self.until_idle("write", queue)?;
        // SAFETY: the buffer has as many elements as the slice.
        unsafe { queue.write(buffer.address(), bytemuck::cast_slice(data)) }
            .map_err(|source| self.group.device_error(&"write", source))
    }

    /// Copies elements from the device, when what the buffer is used for has ended.
    pub fn read<T: Element>(&self, buffer: &DeviceBuffer<T, Q>, data: &mut [T]) -> Result<(), Error> {
        check_count("read", data.len(), buffer.len())?;
        let queue = &buffer.memory().queue;
        self.until_idle("read", queue)?;
        // SAFETY: the buffer has as many elements as the slice.
        unsafe { queue.read(buffer.address(), bytemuck::cast_slice_mut(data)) }
            .map_err(|source| self.group.device_error(&"read", source))
    }

    /// The elements of a buffer, when what it is used for has ended.
    pub fn download<T: Element>(&self, buffer: &DeviceBuffer<T, Q>) -> Result<Vec<T>, Error> {
        let mut data = vec![T::default(); buffer.len()];
        self.read(buffer, &mut data)?;
        Ok(data)
    }

    /// Closes the communicator when its calls have ended. Every rank should.
    pub fn close(self) -> Result<(), Error> {
        self.group.close()
    }

    /// Waits until a stream has done what it was given; after the end of the group too.
    fn until_idle(&self, action: &str, queue: &Q) -> Result<(), Error> {
        let group = &self.group;
        let deadline = group.options.deadline;
        let failed = |source| group.device_error(&action, source);
        let mark = queue.mark().map_err(failed)?;
        let is_idle = if group.is_over() {
            wait_for_mark(queue, &mark, deadline).map_err(failed)?
        } else {
            group.watch(&action, deadline, || Ok(queue.is_complete(&mark)?.then_some(())))?.is_some()
        };
        if is_idle {
            return Ok(());
        }
        let cause = format!("the stream did not come to its end within {deadline:?}");
        Err(group.break_with(failed(DeviceError { action: "run", device: queue.device(), cause })))
    }

    fn blank<T: Element>(&self, name: &'static str, count: usize) -> Call {
        Call { index: self.calls, name, data_type: T::DATA_TYPE, count, reduction: None, peer: None }
    }

    /// Gives a call to the stream. `work` makes it, in one or more calls of the library.
    fn enqueue(
        &mut self,
        call: Call,
        buffers: &[&Arc<Memory<Q>>],
        work: impl FnOnce(&Functions, ncclComm_t, cudaStream_t) -> c_int,
    ) -> Result<Pending<Q>, Error> {
        let group = &self.group;
        let own = &group.queue;
        let failed = |source| group.device_error(&call, source);
        own.bind().map_err(failed)?;
        if let Some(other) = buffers.iter().find(|memory| memory.queue.device() != own.device()) {
            return Err(Error::InvalidArgument(format!(
                "{call}: a buffer lies on device {}, and the communicator works on device {}",
                other.queue.device(),
                own.device()
            )));
        }
        let foreign = || buffers.iter().filter(|memory| memory.queue.stream() != own.stream());
        for memory in foreign() {
            memory.queue.mark().and_then(|mark| own.wait_for(&mark)).map_err(failed)?;
        }
        let stream = own.stream().cast();
        group.call(&call, |functions, communicator| work(functions, communicator, stream))?;
        self.calls += 1;
        // From here on the device may use the memory, whatever happens.
        let memory: Vec<_> = buffers.iter().map(|memory| Arc::clone(memory)).collect();
        let marked = self.settled(call).and_then(|()| {
            let mark = own.mark().map_err(failed)?;
            foreign().try_for_each(|memory| memory.queue.wait_for(&mark)).map_err(failed)?;
            Ok(mark)
        });
        match marked {
            Ok(mark) => Ok(Pending::new(&self.group, call, mark, memory)),
            Err(error) => {
                let is_ended = self.group.end(Failure::Broken(error.to_string()));
                tracing::warn!(%call, is_ended, "the memory of a call that broke off is kept for good");
                memory.into_iter().for_each(std::mem::forget);
                Err(error)
            }
        }
    }

    /// Waits until the library has given the call to the device.
    fn settled(&self, call: Call) -> Result<(), Error> {
        let group = &self.group;
        let deadline = group.options.deadline;
        group.settle(&call, deadline)?.ok_or_else(|| {
            let (rank, host) = (group.options.rank, group.options.host.clone());
            group.break_with(Error::Timeout { rank, host, call, after: deadline })
        })
    }

    fn check_rank(&self, what: &str, rank: usize) -> Result<(), Error> {
        if rank < self.world_size() {
            return Ok(());
        }
        let world_size = self.world_size();
        Err(Error::InvalidArgument(format!("cannot {what} rank {rank}: the group has {world_size} ranks")))
    }

    /// A whole of `whole` elements must be a part of `part` for each rank.
    fn check_parts(&self, what: &str, whole: usize, part: usize) -> Result<(), Error> {
        if Some(whole) == part.checked_mul(self.world_size()) {
            return Ok(());
        }
        Err(Error::InvalidArgument(format!(
            "{what}: {whole} elements are not {} parts of {part}, one a rank",
            self.world_size()
        )))
    }
}

impl<Q: Queue> Drop for Communicator<Q> {
    fn drop(&mut self) {
        if self.group.is_over() {
            return;
        }
        if std::thread::panicking() {
            self.group.end(Failure::Aborted("its thread panicked".into()));
        } else if let Err(error) = self.group.close() {
            tracing::warn!(%error, "a communicator was not closed in good order");
        }
    }
}

fn check_count(action: &str, data: usize, buffer: usize) -> Result<(), Error> {
    if data == buffer {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!("cannot {action}: {data} elements, and a buffer of {buffer}")))
}

fn pointer(address: u64) -> *mut c_void {
    address as *mut c_void
}

fn number(peer: Option<Peer>) -> c_int {
    peer.map_or(0, |peer| peer.rank() as c_int)
}

fn data_type<T: Element>() -> ncclDataType_t {
    match T::DATA_TYPE {
        DataType::F32 => ncclDataType_t::ncclFloat32,
        DataType::F64 => ncclDataType_t::ncclFloat64,
        DataType::F16 => ncclDataType_t::ncclFloat16,
        DataType::BF16 => ncclDataType_t::ncclBfloat16,
        DataType::I32 => ncclDataType_t::ncclInt32,
        DataType::I64 => ncclDataType_t::ncclInt64,
        DataType::I8 => ncclDataType_t::ncclInt8,
        DataType::U8 => ncclDataType_t::ncclUint8,
    }
}

/// NCCL's name of a reduction. Where contributions are NaN, its smallest and largest values are those of the hardware.
fn operation(reduction: Reduction) -> Result<cudarc::nccl::sys::ncclRedOp_t, Error> {
    use cudarc::nccl::sys::ncclRedOp_t;
    Ok(match reduction {
        Reduction::Sum => ncclRedOp_t::ncclSum,
        Reduction::Average => ncclRedOp_t::ncclAvg,
        Reduction::Minimum => ncclRedOp_t::ncclMin,
        Reduction::Maximum => ncclRedOp_t::ncclMax,
        Reduction::Product => ncclRedOp_t::ncclProd,
        Reduction::BitAnd | Reduction::BitOr | Reduction::BitXor => {
            return Err(Error::InvalidArgument(format!(
                "NCCL cannot reduce by {}: sum, avg, min, max and prod it can",
                reduction.name()
            )));
        }
    })
}
