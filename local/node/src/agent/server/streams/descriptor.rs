//! Pipes and terminals in the event loop.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use crate::sys::descriptor::{duplex, readable, writable};

/// Bytes of one read, and of one message to a client.
const CHUNK: usize = 32 << 10;

/// One end of a pipe, or a terminal.
#[derive(Debug, Clone)]
pub(super) struct Descriptor(Arc<AsyncFd<OwnedFd>>);

impl Descriptor {
    /// The reading end of a pipe.
    pub(super) fn reader(descriptor: impl Into<OwnedFd>) -> io::Result<Self> {
        Self::new(descriptor.into(), readable)
    }

    /// The writing end of a pipe.
    pub(super) fn writer(descriptor: impl Into<OwnedFd>) -> io::Result<Self> {
        Self::new(descriptor.into(), writable)
    }

    /// A terminal.
    pub(super) fn terminal(descriptor: OwnedFd) -> io::Result<Self> {
        Self::new(descriptor, duplex)
    }

    fn new(
        descriptor: OwnedFd,
        register: impl Fn(OwnedFd) -> io::Result<AsyncFd<OwnedFd>>,
    ) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        Ok(Self(Arc::new(register(descriptor)?)))
    }

    /// The next bytes; none at the end. May be dropped while it waits.
    pub(super) async fn read(&self) -> io::Result<Bytes> {
        loop {
            let mut guard = self.0.readable().await?;
            if let Ok(read) = guard.try_io(|descriptor| read_once(descriptor.get_ref())) {
                return read;
            }
        }
    }

    /// What is there now, without waiting; `None` for nothing.
    pub(super) fn read_now(&self) -> Option<Bytes> {
        // Asked of the kernel, as the event loop may not have heard yet.
        read_once(self.0.get_ref()).ok().filter(|bytes| !bytes.is_empty())
    }

    /// Writes everything. Dropped while it waits it may have written a part.
    pub(super) async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut guard = self.0.writable().await?;
            if let Ok(written) =
                guard.try_io(|descriptor| Ok(rustix::io::write(descriptor.get_ref(), bytes)?))
            {
                bytes = &bytes[written?..];
            }
        }
        Ok(())
    }

    /// The descriptor itself.
    pub(super) fn inner(&self) -> &OwnedFd {
        self.0.get_ref()
    }
}

fn read_once(descriptor: &OwnedFd) -> io::Result<Bytes> {
    let mut buffer = BytesMut::zeroed(CHUNK);
    match rustix::io::read(descriptor, &mut *buffer) {
        Ok(count) => {
            buffer.truncate(count);
            Ok(buffer.freeze())
        }
        // How a terminal says that no program has it open any more.
        Err(Errno::IO) => Ok(Bytes::new()),
        Err(error) => Err(error.into()),
    }
}
