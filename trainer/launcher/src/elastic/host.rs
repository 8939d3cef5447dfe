//! A node that holds the rendezvous of its job, as torchrun's does its store.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::thread::JoinHandle;
use std::time::Duration;

use muster_rendezvous::ServiceOptions;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::output::Sinks;

/// How long the others may take to hear of the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// The rendezvous in this process, on a thread of its own. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Host {
    shutdown: Option<DropGuard>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// Holds it if one of its addresses is one of this host and nobody holds it yet.
    pub(crate) fn start(addresses: &[SocketAddr], sinks: &Sinks) -> io::Result<Option<Self>> {
        let Some(listener) = own_listener(addresses)? else { return Ok(None) };
        let options = ServiceOptions { farewell: FAREWELL, ..ServiceOptions::open(listener.local_addr()?) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shutdown = CancellationToken::new();
        let (until, sinks) = (shutdown.clone(), sinks.clone());
        let thread = std::thread::Builder::new().name("rendezvous host".into()).spawn(move || {
            let served = runtime.block_on(async { options.on(listener)?.run(until).await });
            if let Err(error) = served {
                sinks.stderr.note(&error.to_string());
            }
        })?;
        Ok(Some(Self { shutdown: Some(shutdown.drop_guard()), thread: Some(thread) }))
    }

    /// Ends it once all others have left it, or might have.
    pub(crate) fn see_off(mut self) {
        self.shutdown = None;
        if let Some(thread) = self.thread.take() {
            // It waits for nothing without a deadline; what it panics with is on standard error.
            let _ = thread.join();
        }
    }
}

/// The addresses at which `host`, a name or an address, may hold a rendezvous.
pub(crate) fn addresses_of(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok((host, port).to_socket_addrs()?.collect())
}

/// Listens at one of the addresses, if it is of this host and nobody else does.
fn own_listener(addresses: &[SocketAddr]) -> io::Result<Option<TcpListener>> {
    for address in addresses {
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(Some(listener)),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_free_port_of_this_host_is_listened_at() {
        let at = |host: &str, port| own_listener(&addresses_of(host, port).unwrap()).unwrap();
        let taken = at("127.0.0.1", 0).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(at("127.0.0.1", port).is_none());
        // An address for documentation, which no host has.
        assert!(at("192.0.2.1", port).is_none());
        let own = at("127.77.0.1", port).unwrap();
        assert_eq!(own.local_addr().unwrap().port(), port);
        assert!(addresses_of("host.invalid", port).is_err());
        let own = at("[::1]", 0).unwrap();
        assert!(own.local_addr().unwrap().is_ipv6());
    }
}
