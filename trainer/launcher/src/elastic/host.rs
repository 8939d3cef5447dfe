//! A node that holds the rendezvous of its job, as torchrun's does its store.

use std::io;
use std::net::{TcpListener, ToSocketAddrs};
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
    /// Holds it if the address is one of this host and nobody holds it yet.
    pub(crate) fn start(host: &str, port: u16, sinks: &Sinks) -> io::Result<Option<Self>> {
        let Some(listener) = own_listener(host, port)? else { return Ok(None) };
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

/// Listens at one of the addresses of `host`, if it is this host and nobody else does.
fn own_listener(host: &str, port: u16) -> io::Result<Option<TcpListener>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    for address in (host, port).to_socket_addrs()? {
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
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(own_listener("127.0.0.1", port).unwrap().is_none());
        // An address for documentation, which no host has.
        assert!(own_listener("192.0.2.1", port).unwrap().is_none());
        let own = own_listener("127.77.0.1", port).unwrap().unwrap();
        assert_eq!(own.local_addr().unwrap().port(), port);
        assert!(own_listener("host.invalid", port).is_err());
    }
}
