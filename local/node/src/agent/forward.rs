//! Brings pods to the API server: it listens on the machine's loopback address, which a pod's network does not have.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// So many connections of pods are carried at once.
const CONNECTIONS: usize = 1024;
/// The server is on this machine: it answers soon or not at all.
const DIAL_PATIENCE: Duration = Duration::from_secs(5);

/// The names under which programs look for the API server.
pub(super) const NAMES: [&str; 4] =
    ["kubernetes.default.svc", "kubernetes.default", "kubernetes.default.svc.cluster.local", "kubernetes"];

/// Listens at the machine's address on the pods' network, at the port of the API server.
pub(super) fn listen(gateway: Ipv4Addr, api: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((gateway, api.port())))?;
    socket.listen(256)
}

/// Carries connections of pods to `api` until dropped. `is_pod` keeps out the rest of the world.
pub(super) async fn serve(
    listener: TcpListener,
    api: SocketAddr,
    is_pod: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((pod, address)) if is_pod(address.ip()) => {
                    connections.spawn(carry(pod, api));
                }
                Ok((_, address)) => tracing::debug!(%address, "refused a connection that no pod makes"),
                Err(error) => {
                    tracing::warn!(%error, "pods cannot reach the API server; trying again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn carry(mut pod: TcpStream, api: SocketAddr) {
    let Ok(Ok(mut server)) = tokio::time::timeout(DIAL_PATIENCE, TcpStream::connect(api)).await else {
        tracing::debug!("the API server does not answer a pod");
        return;
    };
    let _ = (pod.set_nodelay(true), server.set_nodelay(true));
    if let Err(error) = copy_bidirectional(&mut pod, &mut server).await {
        tracing::debug!(%error, "a pod's connection to the API server broke");
    }
}
