//! Carries connections and datagrams from the address of a service to its endpoints, in turn.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::agent::context::Context;
use crate::services::directory::{Backend, Frontend, Protocol};

/// So many connections and conversations are carried at once.
const CONVERSATIONS: usize = 4096;
/// An endpoint is near: it answers soon or not at all.
const DIAL_PATIENCE: Duration = Duration::from_secs(5);
/// So many endpoints are dialled for one connection.
const DIAL_ATTEMPTS: usize = 3;
/// A conversation of datagrams is over after such a silence.
const SILENCE: Duration = Duration::from_mins(1);
/// An address that is not free yet is tried again.
const RETRY: Duration = Duration::from_millis(200);
const LARGEST_DATAGRAM: usize = 65_536;

/// What all listeners share.
struct Shared {
    context: Arc<Context>,
    /// Ends conversations with the agent; they outlive the listener they came by.
    over: CancellationToken,
    room: Arc<Semaphore>,
}

/// A listener and what it leads to.
struct Running {
    backend: Backend,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Listens wherever a service has endpoints, until dropped.
pub(super) async fn serve(context: &Arc<Context>) {
    let over = CancellationToken::new();
    let _guard = over.clone().drop_guard();
    let room = Arc::new(Semaphore::new(CONVERSATIONS));
    let shared = Arc::new(Shared { context: context.clone(), over, room });
    let mut changes = context.services.changed.subscribe();
    let mut running: BTreeMap<Frontend, Running> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let mut wanted = context.services.directory().frontends();
        let gone: Vec<Frontend> = running
            .iter()
            .filter(|(frontend, running)| wanted.get(frontend) != Some(&running.backend))
            .map(|(frontend, _)| frontend.clone())
            .collect();
        for frontend in gone {
            if let Some(mut running) = running.remove(&frontend) {
                running.task.abort();
                // The address must be free before it is used again.
                let _ = (&mut running.task).await;
            }
        }
        wanted.retain(|frontend, _| !running.contains_key(frontend));
        let mut complete = true;
        for (frontend, backend) in wanted {
            match start(&shared, &frontend, &backend).await {
                Ok(task) => {
                    running.insert(frontend, Running { backend, task });
                }
                Err(error) => {
                    let service = format!("{}/{}", backend.service.0, backend.service.1);
                    tracing::debug!(service, address = %frontend.address, %error, "cannot listen for a service");
                    complete = false;
                }
            }
        }
        let patience = if complete { Duration::MAX } else { RETRY };
        if let Ok(Err(_)) = timeout(patience, changes.changed()).await {
            return;
        }
    }
}

async fn start(shared: &Arc<Shared>, frontend: &Frontend, backend: &Backend) -> io::Result<JoinHandle<()>> {
    let sockets = shared.context.network.as_ref().map(crate::network::Network::sockets);
    let choice = Choice { shared: shared.clone(), backend: backend.clone(), turn: AtomicUsize::new(0) };
    let address = frontend.address;
    Ok(match frontend.protocol {
        Protocol::Tcp => {
            let listener = match sockets {
                Some(sockets) => sockets.listen(address).await?,
                None => TcpListener::bind(address).await?,
            };
            tokio::spawn(carry_connections(listener, Arc::new(choice)))
        }
        Protocol::Udp => {
            let socket = match sockets {
                Some(sockets) => sockets.bind(address).await?,
                None => UdpSocket::bind(address).await?,
            };
            tokio::spawn(carry_datagrams(socket, choice))
        }
    })
}

/// Which endpoint is next.
struct Choice {
    shared: Arc<Shared>,
    backend: Backend,
    turn: AtomicUsize,
}

impl Choice {
    /// All endpoints, the one to try first in front.
    fn order(&self, client: IpAddr) -> Vec<SocketAddr> {
        let mut targets = self.shared.context.services.directory().targets(&self.backend);
        if self.backend.sticky {
            // Everybody has an order of preference of his own, which other endpoints coming and going do not change.
            targets.sort_by_key(|target| {
                let mut hasher = DefaultHasher::new();
                (client, target).hash(&mut hasher);
                hasher.finish()
            });
        } else if !targets.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % targets.len();
            targets.rotate_left(turn);
        }
        targets
    }
}

async fn carry_connections(listener: TcpListener, choice: Arc<Choice>) {
    loop {
        let Ok(permit) = choice.shared.room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, address)) => {
                let choice = choice.clone();
                tokio::spawn(async move {
                    let over = choice.shared.over.clone();
                    over.run_until_cancelled(carry(client, address, &choice)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot take a connection to a service");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn carry(mut client: TcpStream, address: SocketAddr, choice: &Choice) {
    for target in choice.order(address.ip()).into_iter().take(DIAL_ATTEMPTS) {
        let Ok(Ok(mut server)) = timeout(DIAL_PATIENCE, TcpStream::connect(target)).await else { continue };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        if let Err(error) = copy_bidirectional(&mut client, &mut server).await {
            tracing::debug!(%error, "a connection to a service broke");
        }
        return;
    }
    tracing::debug!(service = %choice.backend.service.1, "no endpoint of a service answers");
}

async fn carry_datagrams(socket: UdpSocket, choice: Choice) {
    let socket = Arc::new(socket);
    let mut conversations: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    // They go with the socket that their answers leave by.
    let mut answers: JoinSet<SocketAddr> = JoinSet::new();
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    loop {
        let (length, client) = tokio::select! {
            Some(ended) = answers.join_next(), if !answers.is_empty() => {
                if let Ok(client) = ended {
                    conversations.remove(&client);
                }
                continue;
            }
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // The kernel passes on that an earlier answer did not arrive.
                Err(_) => continue,
            },
        };
        let server = if let Some(server) = conversations.get(&client) {
            server.clone()
        } else {
            let Ok(permit) = choice.shared.room.clone().try_acquire_owned() else { continue };
            let Some(target) = choice.order(client.ip()).into_iter().next() else { continue };
            let Ok(server) = connect(target).await else { continue };
            let server = Arc::new(server);
            conversations.insert(client, server.clone());
            let (from, to) = (server.clone(), socket.clone());
            answers.spawn(async move {
                answer(&from, &to, client).await;
                drop(permit);
                client
            });
            server
        };
        let _ = server.send(&buffer[..length]).await;
    }
}

async fn connect(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = ([0, 0, 0, 0], 0).into();
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    Ok(socket)
}

/// Brings what the endpoint says back to the client, until it is silent.
async fn answer(server: &UdpSocket, socket: &UdpSocket, client: SocketAddr) {
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    while let Ok(Ok(length)) = timeout(SILENCE, server.recv(&mut buffer)).await {
        let _ = socket.send_to(&buffer[..length], client).await;
    }
}
