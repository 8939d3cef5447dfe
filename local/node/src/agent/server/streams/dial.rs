//! Connections to ports of a pod, from inside of its network.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::protocol::session::{Family, SessionEvent, SessionRequest};
use crate::runtime::session::SessionConnection;

/// A program of the same pod answers soon or not at all.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pod whose ports are wanted.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Its folder.
    pub(super) directory: PathBuf,
    /// Its name and uid, for messages.
    pub(super) name: String,
    /// Its own address, if it shares the network with others: there it comes before loopback, which is everybody's.
    pub(super) address: Option<IpAddr>,
}

impl Target {
    /// Connects with a port; the reason why not is for the client.
    pub(super) async fn dial(&self, port: u16) -> Result<TcpStream, String> {
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let mut refused = None;
        for address in self.address.into_iter().chain(loopback) {
            let dialled = timeout(PATIENCE, self.connect(SocketAddr::new(address, port))).await;
            match dialled.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut))) {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        let why = refused.map_or_else(|| "no address".to_owned(), |error| error.to_string());
        Err(format!(
            "error forwarding port {port} to pod {}: failed to connect to localhost:{port} inside the pod: {why}",
            self.name
        ))
    }

    /// The socket is opened by the pod's init, because a socket stays in the network in which it was opened.
    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
        let mut connection = SessionConnection::open(&self.directory, SessionRequest::Socket { family }, &[])
            .map_err(|error| io::Error::other(format!("the pod does not run: {error}")))?;
        match connection.next().await? {
            Some((SessionEvent::Ready { .. }, Some(socket))) => {
                TcpSocket::from_std_stream(std::net::TcpStream::from(socket)).connect(address).await
            }
            Some((SessionEvent::Failed { message }, _)) => Err(io::Error::other(message)),
            _ => Err(io::Error::other("the pod ended")),
        }
    }
}
