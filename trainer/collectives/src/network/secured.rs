//! A connection under TLS. It keeps what has come but cannot be opened yet, and what is sealed but not sent yet.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};
use rustls::Connection;

use super::exchange::NAP;
use super::handshake::Nonce;
use crate::rendezvous::Patience;

/// Most bytes that are sealed at a time: the other side opens them while the next ones are sealed.
const MOST_SEALED: usize = 64 << 10;

/// What the keys of a session are asked for (RFC 8446, section 7.5).
const BINDING: &[u8] = b"EXPORTER-muster-group-token";

/// Bytes taken from the kernel at a time.
const ARRIVED_BYTES: usize = 64 << 10;

/// A socket, and the state of TLS on it. One thread may send while another receives: whoever waits for the kernel holds
/// nothing that the other one needs.
#[derive(Debug)]
pub(super) struct Secured {
    pub(super) socket: TcpStream,
    connection: Mutex<Connection>,
    /// Bytes of the sender that are sealed, but not all with the kernel yet.
    sealed: Mutex<usize>,
    arrived: Mutex<Arrived>,
}

/// What has come and was not looked at yet: `bytes[begin..end]`.
#[derive(Debug)]
struct Arrived {
    bytes: Box<[u8]>,
    begin: usize,
    end: usize,
}

impl Secured {
    pub(super) fn new(socket: TcpStream, connection: impl Into<Connection>) -> Self {
        let mut connection = connection.into();
        // What is sealed at a time is bounded here, by whole messages of the caller.
        connection.set_buffer_limit(None);
        let arrived = Arrived { bytes: vec![0; ARRIVED_BYTES].into(), begin: 0, end: 0 };
        Self {
            socket,
            connection: Mutex::new(connection),
            sealed: Mutex::new(0),
            arrived: Mutex::new(arrived),
        }
    }

    /// The handshake of the side that has called.
    pub(super) fn shake(&self, patience: Patience<'_>) -> io::Result<()> {
        let connection = &mut *held(&self.connection);
        let mut wire = Wire { socket: &self.socket, flags: SendFlags::NOSIGNAL };
        while connection.is_handshaking() || connection.wants_write() {
            let remaining = patience.remaining().ok_or(io::ErrorKind::TimedOut)?;
            self.socket.set_read_timeout(Some(remaining))?;
            self.socket.set_write_timeout(Some(remaining))?;
            match step(connection, &mut wire) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// A number that depends on `nonce` and this session, and is the same on both sides.
    pub(super) fn bound(&self, nonce: &Nonce) -> io::Result<Nonce> {
        held(&self.connection)
            .export_keying_material(Nonce::default(), BINDING, Some(nonce))
            .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }

    /// Sends from the front of both parts and tells how many bytes of them are with the kernel. Bytes that were only
    /// begun do not count, and must stand in front again in the next call. If `waits`, it waits for a [`NAP`] where the
    /// kernel takes nothing.
    pub(super) fn send(&self, head: &[u8], body: &[u8], waits: bool) -> io::Result<usize> {
        let mut sealed = held(&self.sealed);
        if *sealed == 0 {
            let body = &body[..body.len().min(MOST_SEALED.saturating_sub(head.len()))];
            let parts = [IoSlice::new(head), IoSlice::new(body)];
            *sealed = held(&self.connection).writer().write_vectored(&parts)?;
        }
        let mut moved = false;
        let mut has_waited = false;
        loop {
            match self.flush(&mut held(&self.connection), &mut moved) {
                Ok(()) => return Ok(std::mem::take(&mut *sealed)),
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                Err(_) if moved => return Ok(0),
                Err(error) if has_waited || !waits => return Err(error),
                Err(_) => {}
            }
            let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(NAP.subsec_nanos()) };
            poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], Some(&timeout))?;
            has_waited = true;
        }
    }

    /// Gives the kernel what is sealed, as far as it takes it.
    fn flush(&self, connection: &mut Connection, moved: &mut bool) -> io::Result<()> {
        let mut wire = Wire { socket: &self.socket, flags: SendFlags::NOSIGNAL | SendFlags::DONTWAIT };
        while connection.wants_write() {
            connection.write_tls(&mut wire)?;
            *moved = true;
        }
        Ok(())
    }

    /// Fills the front of `place` with what has come, or, if `waits`, waits for something to come as long as the socket
    /// is told; zero bytes mean that the other side hung up.
    pub(super) fn receive(&self, place: &mut [u8], waits: bool) -> io::Result<usize> {
        let arrived = &mut *held(&self.arrived);
        let flags = if waits { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        loop {
            match self.open(&mut held(&self.connection), arrived, place) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            let (count, _) = recv(&self.socket, &mut arrived.bytes[..], flags)?;
            if count == 0 {
                return Ok(0);
            }
            (arrived.begin, arrived.end) = (0, count);
        }
    }

    /// Opens what has come until something can be put into `place`, and answers what belongs to the handshake.
    fn open(
        &self,
        connection: &mut Connection,
        arrived: &mut Arrived,
        place: &mut [u8],
    ) -> io::Result<usize> {
        loop {
            match connection.reader().read(place) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && arrived.begin < arrived.end => {}
                result => return result,
            }
            let mut rest = &arrived.bytes[arrived.begin..arrived.end];
            arrived.begin += connection.read_tls(&mut rest)?;
            let opened = connection.process_new_packets();
            // An alert or a step of the handshake, which fits into the kernel's buffer, or what is on its way anyway. If
            // the other side is gone, that shows when it is listened to.
            let _ = self.flush(connection, &mut false);
            opened.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        }
    }
}

/// Sends or receives once for the handshake, so that the caller can look at the time in between.
fn step(connection: &mut Connection, wire: &mut Wire<'_>) -> io::Result<()> {
    if connection.wants_write() {
        connection.write_tls(wire)?;
        return Ok(());
    }
    if connection.read_tls(wire)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    connection.process_new_packets().map_err(|error| {
        // The alert that says why; the error is told whether it arrives or not.
        let _ = connection.write_tls(wire);
        io::Error::new(ErrorKind::InvalidData, error)
    })?;
    Ok(())
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The socket as TLS wants it.
struct Wire<'a> {
    socket: &'a TcpStream,
    flags: SendFlags,
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(sendmsg(self.socket, parts, &mut SendAncillaryBuffer::default(), self.flags)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Wire<'_> {
    fn read(&mut self, place: &mut [u8]) -> io::Result<usize> {
        let (count, _) = recv(self.socket, place, RecvFlags::empty())?;
        Ok(count)
    }
}
