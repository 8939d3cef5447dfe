//! The agent's side of a session with a pod's init.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::Path;

use tokio::io::Interest;
use tokio::net::UnixStream;

use super::Error;
use crate::init::SOCKET;
use crate::protocol::session::{Incoming, SessionEvent, SessionRequest};
use crate::protocol::{InitRequest, send};

/// A connection to a pod's init that is one session; dropping it ends the session.
#[derive(Debug)]
pub(crate) struct SessionConnection {
    stream: UnixStream,
    incoming: Incoming,
    descriptors: VecDeque<OwnedFd>,
}

impl SessionConnection {
    /// Asks the init of the pod whose folder this is; an error if none runs.
    pub(crate) fn open(
        directory: &Path,
        request: SessionRequest,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Self, Error> {
        let folder = fs_err::File::open(directory)?;
        // Through the descriptor, because the path of a socket may have only 107 bytes.
        let stream = BlockingStream::connect(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))?;
        send(&stream, &InitRequest::Session(request), descriptors)?;
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        Ok(Self { stream, incoming: Incoming::default(), descriptors: VecDeque::new() })
    }

    /// The next event and the descriptor that belongs to it; `None` when the pod's init is gone. May be dropped while
    /// it waits.
    pub(crate) async fn next(&mut self) -> io::Result<Option<(SessionEvent, Option<OwnedFd>)>> {
        loop {
            if let Some(event) = self.incoming.next::<SessionEvent>()? {
                self.descriptors.append(&mut self.incoming.take_descriptors());
                let descriptor = match event {
                    SessionEvent::Ready { .. } => self.descriptors.pop_front(),
                    SessionEvent::Ended { .. } | SessionEvent::Failed { .. } => None,
                };
                return Ok(Some((event, descriptor)));
            }
            self.stream.readable().await?;
            match self.stream.try_io(Interest::READABLE, || self.incoming.read(&self.stream)) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The init was killed with something of ours unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Says that a client that is attached has ended its input.
    pub(crate) fn end_input(&self) {
        // One byte always has room; an init that is gone does not want to know.
        let _ = self.stream.try_write(&[0]);
    }
}
