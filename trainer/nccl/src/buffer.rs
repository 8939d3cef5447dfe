//! Memory of a device, with the type of its elements.
#![allow(unsafe_code)]

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use muster_collectives::Element;

use crate::cuda::Cuda;
use crate::error::Error;
use crate::queue::{DeviceError, Queue};

/// Elements in the memory of a device. Made by [`Communicator::allocate`](crate::Communicator::allocate), or from memory
/// of others ([`Self::from_raw`]).
///
/// Work that uses it keeps the memory alive until it ends, also where the buffer is dropped before.
#[derive(Debug)]
pub struct DeviceBuffer<T, Q: Queue = Cuda> {
    memory: Arc<Memory<Q>>,
    count: usize,
    elements: PhantomData<T>,
}

/// The memory of a buffer and the stream in whose order it is used.
#[derive(Debug)]
pub(crate) struct Memory<Q: Queue> {
    pub(crate) address: u64,
    pub(crate) queue: Q,
    /// Frees the memory when dropped.
    _owner: Owner<Q>,
}

#[derive(Debug)]
enum Owner<Q: Queue> {
    Own(#[allow(dead_code, reason = "held for its drop")] Q::Memory),
    Foreign(#[allow(dead_code, reason = "held for its drop")] Box<dyn Any + Send + Sync>),
}

impl<T: Element, Q: Queue> DeviceBuffer<T, Q> {
    pub(crate) fn zeroed(queue: &Q, count: usize) -> Result<Self, DeviceError> {
        // No address without a byte.
        let bytes = count.saturating_mul(size_of::<T>()).max(size_of::<T>());
        let memory = queue.allocate(bytes)?;
        let memory =
            Memory { address: Q::address(&memory), queue: queue.clone(), _owner: Owner::Own(memory) };
        Ok(Self { memory: Arc::new(memory), count, elements: PhantomData })
    }

    /// A view of memory of somebody else, such as a tensor's. The owner is kept until no work uses the memory.
    ///
    /// # Safety
    ///
    /// `count` elements must lie at the address, on the queue's device, as long as the owner lives, and whoever else
    /// uses them must do so in the order of the queue.
    pub unsafe fn from_raw(
        queue: &Q,
        address: u64,
        count: usize,
        owner: impl Any + Send + Sync,
    ) -> Result<Self, Error> {
        if !address.is_multiple_of(align_of::<T>() as u64) {
            return Err(Error::InvalidArgument(format!(
                "memory at {address:#x} is not aligned for elements of type {}",
                T::DATA_TYPE.name()
            )));
        }
        let memory = Memory { address, queue: queue.clone(), _owner: Owner::Foreign(Box::new(owner)) };
        Ok(Self { memory: Arc::new(memory), count, elements: PhantomData })
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Where it lies, as the device sees it.
    pub fn address(&self) -> u64 {
        self.memory.address
    }

    pub(crate) fn memory(&self) -> &Arc<Memory<Q>> {
        &self.memory
    }
}
