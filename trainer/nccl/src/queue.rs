//! What is needed of a device besides NCCL: a stream of work, marks in it, and memory.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fmt;
use std::time::{Duration, Instant};

/// A stream of work of a device, which runs in the order in which it was given. Clones are the same stream.
///
/// [`Cuda`](crate::Cuda) is the one for GPUs.
///
/// # Safety
///
/// Collectives write to memory of this trait at the addresses it gives. An implementation promises that
/// [`Self::stream`] is what the loaded library takes for a stream, that memory stays where it is until it is dropped,
/// and that a mark is complete only when all work given before it has ended.
pub unsafe trait Queue: Clone + fmt::Debug + Send + Sync + 'static {
    /// A mark in the stream.
    type Mark: fmt::Debug + Send + Sync + 'static;
    /// Memory of the device, free again when dropped.
    type Memory: fmt::Debug + Send + Sync + 'static;

    /// Makes the device the one that the calling thread works with.
    fn bind(&self) -> Result<(), DeviceError>;

    /// The stream, as NCCL takes it.
    fn stream(&self) -> *mut c_void;

    /// The number of the device.
    fn device(&self) -> usize;

    /// Marks where the stream is now.
    fn mark(&self) -> Result<Self::Mark, DeviceError>;

    /// Whether all work before the mark has ended. Returns at once.
    fn is_complete(&self, mark: &Self::Mark) -> Result<bool, DeviceError>;

    /// Lets what is given to this stream from now on wait for a mark in another one.
    fn wait_for(&self, mark: &Self::Mark) -> Result<(), DeviceError>;

    /// Memory for so many bytes, which are zero, aligned for every type of elements.
    fn allocate(&self, bytes: usize) -> Result<Self::Memory, DeviceError>;

    /// Where the memory lies, as the device sees it.
    fn address(memory: &Self::Memory) -> u64;

    /// Copies to the device, after the work given before. The stream must be idle, so that it takes no longer than
    /// the copy.
    ///
    /// # Safety
    ///
    /// So many bytes of live memory must lie at the address.
    unsafe fn write(&self, address: u64, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Copies from the device, after the work given before. The stream must be idle, so that it takes no longer than
    /// the copy.
    ///
    /// # Safety
    ///
    /// So many bytes of live memory must lie at the address.
    unsafe fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), DeviceError>;
}

/// An answer of a device that is not success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {action} on device {device}: {cause}")]
pub struct DeviceError {
    /// What was attempted.
    pub action: &'static str,
    /// The number of the device.
    pub device: usize,
    /// What it answered.
    pub cause: String,
}

/// Waits for a mark, without looking at any communicator; says whether the stream came there.
pub(crate) fn wait_for_mark<Q: Queue>(
    queue: &Q,
    mark: &Q::Mark,
    patience: Duration,
) -> Result<bool, DeviceError> {
    let began = Instant::now();
    let mut pause = Duration::from_micros(20);
    while !queue.is_complete(mark)? {
        if began.elapsed() >= patience {
            return Ok(false);
        }
        std::thread::park_timeout(pause);
        pause = (pause * 2).min(Duration::from_millis(1));
    }
    Ok(true)
}
