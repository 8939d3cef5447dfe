//! A connection between two ranks, plain or under TLS: the rest sees no difference.

use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};

use super::handshake::Nonce;
use super::secured::Secured;
use super::sockets;
use crate::rendezvous::Patience;

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Secured(Box<Secured>),
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

impl Stream {
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Secured(secured) => &secured.socket,
        }
    }

    pub(super) fn is_secured(&self) -> bool {
        matches!(self, Self::Secured(_))
    }

    /// Sends from the front of both parts, without waiting unless `waits` and then at most as long as the socket is
    /// told, and says how many bytes are done with. It may be none though some were begun; then the same bytes must
    /// come again.
    pub(super) fn send(&self, head: &[u8], body: &[u8], waits: bool) -> io::Result<usize> {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Secured(secured) => return secured.send(head, body, waits),
        };
        let flags = SendFlags::NOSIGNAL | if waits { SendFlags::empty() } else { SendFlags::DONTWAIT };
        let sent = if head.is_empty() {
            send(socket, body, flags)
        } else {
            let parts = [IoSlice::new(head), IoSlice::new(body)];
            sendmsg(socket, &parts, &mut SendAncillaryBuffer::default(), flags)
        };
        Ok(sent?)
    }

    /// Receives to the front of `place`, and if `waits` all of it if it comes soon enough. Takes all that has come as
    /// long as there is room: what is not taken is with the kernel. Zero bytes mean that the other side hung up.
    pub(super) fn receive(&self, place: &mut [u8], waits: bool) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => {
                let flags = if waits { RecvFlags::WAITALL } else { RecvFlags::DONTWAIT };
                let (count, _) = recv(socket, place, flags)?;
                Ok(count)
            }
            Self::Secured(secured) => secured.receive(place, waits),
        }
    }

    /// What stands for `nonce` in proofs on this connection. Under TLS it is of this session alone, so that whoever sits
    /// between two ranks cannot pass the proof of one of them on to the other (RFC 9266).
    pub(super) fn bound(&self, nonce: &Nonce) -> io::Result<Nonce> {
        match self {
            Self::Plain(_) => Ok(*nonce),
            Self::Secured(secured) => secured.bound(nonce),
        }
    }

    /// Lets a thread that waits for more sleep until so many bytes are there, where the kernel can count them.
    pub(super) fn wake_at(&self, bytes: usize) {
        if let Self::Plain(socket) = self {
            sockets::wake_at(socket, bytes);
        }
    }

    /// Fills `bytes` from a blocking stream before the deadline.
    pub(super) fn read_exactly(&self, bytes: &mut [u8], patience: Patience<'_>) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let remaining = patience.remaining().ok_or(io::ErrorKind::TimedOut)?;
            self.socket().set_read_timeout(Some(remaining))?;
            match self.receive(&mut bytes[done..], true) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what stands behind its length of 16 bits.
    pub(super) fn read_framed(&self, longest: usize, patience: Patience<'_>) -> io::Result<Vec<u8>> {
        let mut length = [0; 2];
        self.read_exactly(&mut length, patience)?;
        let length = usize::from(u16::from_le_bytes(length));
        if length > longest {
            return Err(io::Error::other(format!(
                "a message of {length} bytes is longer than any of this protocol"
            )));
        }
        let mut bytes = vec![0; length];
        self.read_exactly(&mut bytes, patience)?;
        Ok(bytes)
    }

    /// Writes all of `bytes`, to a socket blocking or not, before the deadline.
    pub(super) fn write_all(&self, mut bytes: &[u8], patience: Patience<'_>) -> io::Result<()> {
        self.socket().set_nonblocking(false)?;
        while !bytes.is_empty() {
            let remaining = patience.remaining().ok_or(io::ErrorKind::TimedOut)?;
            self.socket().set_write_timeout(Some(remaining))?;
            match self.send(&[], bytes, true) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}
