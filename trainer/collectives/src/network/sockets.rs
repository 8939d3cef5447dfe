//! Sockets that never wait without an end, and their settings.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use super::exchange::NAP;
use crate::rendezvous::Patience;

/// Bytes wanted in the kernel's buffers of a connection for data: those in flight on a fast network, and the next
/// ones to add.
const BUFFER_BYTES: usize = 4 << 20;

const BACKLOG: i32 = 1024;

/// A socket that listens without blocking, at the given address or, where a machine has no IPv6, its IPv4 namesake.
pub(super) fn open_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let attempt = |address: SocketAddr| {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket: OwnedFd = socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if address.ip() == Ipv6Addr::UNSPECIFIED {
            sockopt::set_ipv6_v6only(&socket, false)?;
        }
        // What is accepted inherits the sizes, which count from the first packet on.
        enlarge_buffers(&socket);
        bind(&socket, &address)?;
        listen(&socket, BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    match attempt(address) {
        Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            attempt(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        result => result,
    }
}

/// Where rank 0 of the group listens: everywhere, or only on this machine if its address is that of this machine alone.
pub(super) fn listening_address(address: &str) -> io::Result<SocketAddr> {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let port = port.parse().map_err(|_| io::Error::other(format!("{address:?} has no port")))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip = host.parse::<IpAddr>().ok().filter(IpAddr::is_loopback);
    Ok(SocketAddr::new(ip.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), port))
}

/// Connects to the first address behind a name that answers.
pub(super) fn connect(address: &str, patience: Patience<'_>) -> io::Result<TcpStream> {
    let mut last = io::Error::other(format!("{address} has no address"));
    for address in address.to_socket_addrs()? {
        let Some(left) = patience.left() else { return Err(io::ErrorKind::TimedOut.into()) };
        // A dead host must not eat the time in which another answers.
        match TcpStream::connect_timeout(&address, left.min(Duration::from_secs(5))) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Settings of a connection between members: nothing waits to be sent, and a peer's silence is noticed.
pub(super) fn configure(stream: &TcpStream, silence: Duration, is_watched: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(1))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1))?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    if is_watched {
        // Not where data flows: there a peer may rightly take nothing for longer.
        sockopt::set_tcp_user_timeout(stream, u32::try_from(silence.as_millis()).unwrap_or(u32::MAX))?;
        stream.set_nonblocking(true)?;
    } else {
        // Those who do not want to wait say so in each call.
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(NAP))?;
        stream.set_write_timeout(Some(NAP))?;
        enlarge_buffers(stream);
    }
    Ok(())
}

/// Asks for large buffers where the system grants them; where it does not, asking would only end its own tuning.
fn enlarge_buffers(socket: impl AsFd) {
    let granted = |name: &str| {
        let limit = fs::read_to_string(format!("/proc/sys/net/core/{name}"));
        limit
            .ok()
            .and_then(|limit| limit.trim().parse::<usize>().ok())
            .is_some_and(|limit| limit >= BUFFER_BYTES)
    };
    if granted("rmem_max") {
        let _ = sockopt::set_socket_recv_buffer_size(&socket, BUFFER_BYTES);
    }
    if granted("wmem_max") {
        let _ = sockopt::set_socket_send_buffer_size(&socket, BUFFER_BYTES);
    }
}

/// Lets the kernel wake a thread that reads only once so many bytes are there, or the connection ends.
#[allow(unsafe_code)]
pub(super) fn wake_at(stream: &TcpStream, bytes: usize) {
    let bytes = bytes as libc::c_int;
    // SAFETY: the option is an integer, which lives until the call returns. Where it is refused, threads are woken more
    // often.
    unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_of_this_machine_alone_is_listened_at_alone() {
        let listening = |address| listening_address(address).unwrap().to_string();
        assert_eq!(listening("127.3.2.1:4000"), "127.3.2.1:4000");
        assert_eq!(listening("[::1]:4000"), "[::1]:4000");
        assert_eq!(listening("digits-master-0:23456"), "[::]:23456");
        assert_eq!(listening("10.0.0.7:23456"), "[::]:23456");
        assert!(listening_address("digits-master-0").is_err());
    }
}
