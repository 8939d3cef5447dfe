//! Streams and memory in the host's memory.

use std::ffi::{c_int, c_long, c_void};
use std::sync::{Arc, Mutex};

use muster_nccl::{DeviceBuffer, DeviceError, Queue, UniqueId};

use crate::fake::{Fake, Stream};

#[derive(Clone, Debug)]
pub(crate) struct HostQueue {
    own: Arc<Own>,
    device: usize,
    trap: Arc<Mutex<Option<(UniqueId, usize, i32)>>>,
}

#[derive(Debug)]
struct Own(Stream);

// SAFETY: the library's streams are used by any thread.
unsafe impl Send for Own {}
// SAFETY: as above.
unsafe impl Sync for Own {}

impl Drop for Own {
    fn drop(&mut self) {
        let destroy: unsafe extern "C" fn(Stream) = Fake::get().stream_function("fake_stream_destroy");
        // SAFETY: made by the library, and nobody has it any more.
        unsafe { destroy(self.0) }
    }
}

impl HostQueue {
    pub(crate) fn new() -> Self {
        Self::on(0)
    }

    pub(crate) fn on(device: usize) -> Self {
        let create: unsafe extern "C" fn() -> Stream = Fake::get().stream_function("fake_stream_create");
        // SAFETY: the signature of the source.
        let stream = unsafe { create() };
        assert!(!stream.is_null());
        Self { own: Arc::new(Own(stream)), device, trap: Arc::default() }
    }

    /// Lets the library fail with this code for this rank in the moment in which the stream is next found idle.
    pub(crate) fn fail_with_the_end(&self, id: UniqueId, rank: usize, code: i32) {
        *self.trap.lock().unwrap() = Some((id, rank, code));
    }

    /// Gives the stream a task that ends when the gate is opened.
    pub(crate) fn hold(&self, gate: &Gate) {
        let hold: unsafe extern "C" fn(Stream, *mut c_int) = Fake::get().stream_function("fake_stream_gate");
        // SAFETY: the signature of the source; the gate lives for good.
        unsafe { hold(self.own.0, gate.0) }
    }
}

/// Four times a number in memory of somebody else, who is told by the owner when it is used no more.
pub(crate) fn foreign_buffer(queue: &HostQueue, value: i64, owner: Arc<()>) -> DeviceBuffer<i64, HostQueue> {
    let memory: &'static mut [i64] = Box::leak(Box::new([value; 4]));
    let address = memory.as_mut_ptr() as u64;
    // SAFETY: the memory lives for good, and is used by nobody else.
    unsafe { DeviceBuffer::from_raw(queue, address, memory.len(), owner) }.unwrap()
}

/// What a stream can be made to wait for.
#[derive(Clone, Copy)]
pub(crate) struct Gate(*mut c_int);

// SAFETY: the library changes it under its lock.
unsafe impl Send for Gate {}
// SAFETY: as above.
unsafe impl Sync for Gate {}

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(Box::leak(Box::new(0)))
    }

    pub(crate) fn open(self) {
        Fake::get().open_gate(self.0);
    }
}

/// A place in a stream.
#[derive(Debug)]
pub(crate) struct Mark {
    own: Arc<Own>,
    position: c_long,
}

#[derive(Debug)]
pub(crate) struct HostMemory {
    words: *mut [u64],
}

// SAFETY: it is only an address here; the library writes to it from its threads.
unsafe impl Send for HostMemory {}
// SAFETY: as above.
unsafe impl Sync for HostMemory {}

impl Drop for HostMemory {
    fn drop(&mut self) {
        // SAFETY: from a box, and dropped once.
        drop(unsafe { Box::from_raw(self.words) });
    }
}

// SAFETY: the stream is the library's, memory stays in its box, and a stream is as far as the library says.
unsafe impl Queue for HostQueue {
    type Mark = Mark;
    type Memory = HostMemory;

    fn bind(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn stream(&self) -> *mut c_void {
        self.own.0
    }

    fn device(&self) -> usize {
        self.device
    }

    fn mark(&self) -> Result<Mark, DeviceError> {
        let mark: unsafe extern "C" fn(Stream) -> c_long = Fake::get().stream_function("fake_stream_mark");
        // SAFETY: the signature of the source.
        Ok(Mark { own: Arc::clone(&self.own), position: unsafe { mark(self.own.0) } })
    }

    fn is_complete(&self, mark: &Mark) -> Result<bool, DeviceError> {
        let reached: unsafe extern "C" fn(Stream, c_long) -> c_int =
            Fake::get().stream_function("fake_stream_reached");
        // SAFETY: the signature of the source.
        let is_complete = unsafe { reached(mark.own.0, mark.position) } != 0;
        if is_complete && let Some((id, rank, code)) = self.trap.lock().unwrap().take() {
            Fake::get().inject(id, rank, code);
        }
        Ok(is_complete)
    }

    fn wait_for(&self, mark: &Mark) -> Result<(), DeviceError> {
        let wait: unsafe extern "C" fn(Stream, Stream, c_long) =
            Fake::get().stream_function("fake_stream_wait");
        // SAFETY: the signature of the source; tests keep both streams until they are idle.
        unsafe { wait(self.own.0, mark.own.0, mark.position) };
        Ok(())
    }

    fn allocate(&self, bytes: usize) -> Result<HostMemory, DeviceError> {
        Ok(HostMemory { words: Box::into_raw(vec![0; bytes.div_ceil(8)].into_boxed_slice()) })
    }

    fn address(memory: &HostMemory) -> u64 {
        memory.words.cast::<u64>() as u64
    }

    unsafe fn write(&self, address: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        Ok(())
    }

    unsafe fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(address as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }
}
