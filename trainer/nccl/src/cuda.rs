//! Streams of NVIDIA GPUs, through the driver.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaEvent, CudaSlice, CudaStream, DevicePtr, DriverError, result};

use crate::driver::Driver;
use crate::error::Error;
use crate::queue::{DeviceError, Queue};

/// A stream of a GPU.
#[derive(Clone, Debug)]
pub struct Cuda {
    stream: Arc<CudaStream>,
}

impl Cuda {
    /// A new stream of the GPU of this number, among those that the process may use.
    pub fn open(device: usize) -> Result<Self, Error> {
        // The bindings panic where there is no driver.
        let driver = Driver::detect()?;
        if device >= driver.devices {
            return Err(Error::InvalidArgument(format!(
                "there is no GPU {device}: the driver lets this process use {}, counted from 0",
                driver.devices
            )));
        }
        let context = CudaContext::new(device).map_err(failed("open a context", device))?;
        Ok(Self { stream: context.new_stream().map_err(failed("open a stream", device))? })
    }

    /// A stream that somebody else uses too: a tensor library's.
    pub fn of(stream: Arc<CudaStream>) -> Self {
        Self { stream }
    }

    /// The stream itself.
    pub fn cuda_stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// How the GPU calls itself.
    pub fn name(&self) -> Result<String, DeviceError> {
        self.stream.context().name().map_err(self.failed("ask for the name"))
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(DriverError) -> DeviceError {
        failed(action, self.stream.context().ordinal())
    }
}

fn failed(action: &'static str, device: usize) -> impl FnOnce(DriverError) -> DeviceError {
    move |error| DeviceError { action, device, cause: error.to_string() }
}

// SAFETY: the stream is the driver's, which NCCL shares; memory of a slice stays in place; and an event is complete when
// the work before it is.
unsafe impl Queue for Cuda {
    type Mark = CudaEvent;
    type Memory = CudaSlice<u8>;

    fn bind(&self) -> Result<(), DeviceError> {
        self.stream.context().bind_to_thread().map_err(self.failed("use the context"))
    }

    fn stream(&self) -> *mut c_void {
        self.stream.cu_stream().cast()
    }

    fn device(&self) -> usize {
        self.stream.context().ordinal()
    }

    fn mark(&self) -> Result<CudaEvent, DeviceError> {
        self.stream.record_event(None).map_err(self.failed("record an event"))
    }

    fn is_complete(&self, mark: &CudaEvent) -> Result<bool, DeviceError> {
        // A thread that only waits has no context yet.
        self.bind()?;
        mark.try_is_complete().map_err(self.failed("run the work before an event"))
    }

    fn wait_for(&self, mark: &CudaEvent) -> Result<(), DeviceError> {
        self.stream.wait(mark).map_err(self.failed("wait for an event of another stream"))
    }

    fn allocate(&self, bytes: usize) -> Result<CudaSlice<u8>, DeviceError> {
        self.stream.alloc_zeros(bytes).map_err(self.failed("allocate memory"))
    }

    fn address(memory: &CudaSlice<u8>) -> u64 {
        let (address, _wait) = memory.device_ptr(memory.stream());
        address
    }

    unsafe fn write(&self, address: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.bind()?;
        // SAFETY: the caller's promise; the driver has taken the bytes of pageable memory when it returns.
        unsafe { result::memcpy_htod_async(address, bytes, self.stream.cu_stream()) }
            .and_then(|()| self.stream.synchronize())
            .map_err(self.failed("copy to memory"))
    }

    unsafe fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.bind()?;
        // SAFETY: the caller's promise; the copy has ended when the stream is idle again.
        unsafe { result::memcpy_dtoh_async(bytes, address, self.stream.cu_stream()) }
            .and_then(|()| self.stream.synchronize())
            .map_err(self.failed("copy from memory"))
    }
}
