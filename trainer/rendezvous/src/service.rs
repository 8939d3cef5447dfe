//! The service: streams of members, and the groups they belong to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use crate::group::{Arrival, Connection, Group, Order};
use crate::messages::rendezvous_server::{Rendezvous, RendezvousServer};
use crate::messages::{
    EndedWell, Failed, FromMember, Ready, ToMember, from_member, shortened, sound_address,
};

/// A member that takes fewer messages than this behind is told so by the end of its stream.
const UNREAD: usize = 16;
/// Members of one training at most, and trainings at once.
const MOST_MEMBERS: usize = 4096;
const MOST_GROUPS: usize = 65_536;
/// Longest message of a member, in bytes.
const LONGEST_MESSAGE: usize = 16 << 10;
/// How long a caller may take to say who it is, and to be let in.
const DOORSTEP: Duration = Duration::from_secs(10);
/// Callers on the doorstep at once.
const CALLERS: usize = 256;
/// How long a training without members is remembered.
const REMEMBERED: Duration = Duration::from_hours(1);
/// How long members of an earlier service may take to come back: longer than they need to notice and to connect.
pub const COMEBACK: Duration = Duration::from_secs(4);
/// A connection that does not answer for so long has ended.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(5));

/// Why the service could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its address cannot be listened at.
    #[error("the rendezvous cannot listen at {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Its certificate cannot be used, or the transport failed.
    #[error("the rendezvous cannot serve: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Who calls, as far as the service can see.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The bearer token of the call.
    pub token: Option<String>,
    /// The training that it names.
    pub group: String,
}

/// Decides which training a caller belongs to, and gives its name.
pub type Admission = Arc<dyn Fn(Caller) -> BoxFuture<'static, Result<String, NotAdmitted>> + Send + Sync>;

/// Why a caller is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// It has no business here, and need not come again.
    Refused(String),
    /// Who it is cannot be found out now.
    Unknown(String),
}

/// Where and for whom the service is.
#[derive(Clone)]
pub struct ServiceOptions {
    /// Where it listens; port 0 for any.
    pub listen: SocketAddr,
    /// Certificate and key, PEM; without them calls are not encrypted.
    pub certificate: Option<(String, String)>,
    /// Which training a caller belongs to.
    pub admission: Admission,
    /// How long members of an earlier service may take to come back, before groups begin without them; see [`COMEBACK`].
    pub comeback: Duration,
    /// How long the service goes on after its shutdown, at most, until no member is left: those of a training that has
    /// ended have yet to hear of it.
    pub farewell: Duration,
}

impl ServiceOptions {
    /// Without encryption, and every caller belongs to the training that it names: for one machine and its only user.
    pub fn open(listen: SocketAddr) -> Self {
        let admission: Admission = Arc::new(|caller: Caller| Box::pin(async move { Ok(caller.group) }));
        Self { listen, certificate: None, admission, comeback: COMEBACK, farewell: Duration::ZERO }
    }

    /// Listens, but does not serve yet.
    pub async fn bind(self) -> Result<Bound, Error> {
        let failed = |source| Error::Listen { address: self.listen, source };
        let listener = TcpListener::bind(self.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Bound { options: self, listener, address })
    }

    /// Takes a listener that somebody has opened already, instead of [`Self::listen`].
    pub fn on(self, listener: std::net::TcpListener) -> Result<Bound, Error> {
        let failed = |source| Error::Listen { address: self.listen, source };
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Bound { options: self, listener, address })
    }
}

/// A service that listens.
pub struct Bound {
    options: ServiceOptions,
    listener: TcpListener,
    address: SocketAddr,
}

impl Bound {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the shutdown. Members notice, and look for the service that follows.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let (every, patience) = KEEP_ALIVE;
        let mut server =
            Server::builder().http2_keepalive_interval(Some(every)).http2_keepalive_timeout(Some(patience));
        if let Some((certificate, key)) = &self.options.certificate {
            let identity = Identity::from_pem(certificate, key);
            server = server.tls_config(ServerTlsConfig::new().identity(identity).timeout(DOORSTEP))?;
        }
        // However this ends, nobody may stay with a service that is not the one that others find.
        let over = CancellationToken::new();
        let _ends = over.clone().drop_guard();
        let service = Service::new(self.options.admission, self.options.comeback, over.clone());
        let shared = service.shared.clone();
        tokio::spawn(shared.clone().keep_time(over));
        let rendezvous = RendezvousServer::new(service).max_decoding_message_size(LONGEST_MESSAGE);
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        let served = server.serve_with_incoming(rendezvous, incoming);
        // Streams of members last as long as they do: they are cut, not waited for.
        let farewell = self.options.farewell;
        let end = async {
            shutdown.cancelled().await;
            // Whoever has not left by then is not waited for.
            let _ = tokio::time::timeout(farewell, shared.until_all_left()).await;
        };
        tokio::select! {
            served = served => Ok(served?),
            () = end => Ok(()),
        }
    }
}

/// The trainings that are under way.
pub struct Service {
    shared: Arc<Shared>,
    admission: Admission,
    /// The end of the service, and of every stream.
    over: CancellationToken,
    doorstep: Arc<Semaphore>,
}

struct Shared {
    began: Instant,
    comeback: Duration,
    groups: Mutex<Groups>,
    /// Something happened, so that the next thing to do may be due earlier.
    changed: Notify,
    /// A member has gone.
    left: Notify,
}

#[derive(Default)]
struct Groups {
    by_name: HashMap<String, Known>,
    members: Members,
    connections: u64,
}

/// Where members are told something.
#[derive(Default)]
struct Members(HashMap<Connection, mpsc::Sender<Result<ToMember, Status>>>);

struct Known {
    group: Group,
    /// Since when it has no members.
    empty_since: Option<Instant>,
}

impl Service {
    fn new(admission: Admission, comeback: Duration, over: CancellationToken) -> Self {
        let shared = Shared {
            began: Instant::now(),
            comeback,
            groups: Mutex::default(),
            changed: Notify::new(),
            left: Notify::new(),
        };
        Self { shared: Arc::new(shared), admission, over, doorstep: Arc::new(Semaphore::new(CALLERS)) }
    }
}

impl Shared {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Does something to a group, and tells its members what follows.
    fn with_group(&self, name: &str, work: impl FnOnce(&mut Group, &mut Members, Duration)) {
        let mut groups = self.groups.lock();
        let Groups { by_name, members, .. } = &mut *groups;
        let Some(known) = by_name.get_mut(name) else { return };
        let now = self.now();
        work(&mut known.group, members, now);
        members.tell(known.group.advance(now));
        known.empty_since = known.group.is_empty().then(|| known.empty_since.unwrap_or_else(Instant::now));
        drop(groups);
        self.changed.notify_one();
    }

    /// Lets time pass for the groups, until the shutdown.
    async fn keep_time(self: Arc<Self>, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let next = self.pass_time();
            let sleep = tokio::time::sleep_until(next.unwrap_or_else(|| Instant::now() + REMEMBERED));
            tokio::select! {
                () = sleep => {}
                () = self.changed.notified() => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// Does what is due; when something is next.
    fn pass_time(&self) -> Option<Instant> {
        let mut groups = self.groups.lock();
        let now = self.now();
        groups.by_name.retain(|_, known| known.empty_since.is_none_or(|since| since.elapsed() < REMEMBERED));
        let Groups { by_name, members, .. } = &mut *groups;
        for known in by_name.values_mut() {
            members.tell(known.group.advance(now));
        }
        let next = by_name.values().filter_map(|known| known.group.wakes_at()).min();
        next.map(|at| self.began + at)
    }

    /// Until no member is connected.
    async fn until_all_left(&self) {
        loop {
            let left = self.left.notified();
            if self.groups.lock().members.0.is_empty() {
                return;
            }
            left.await;
        }
    }

    /// The end of a connection.
    fn leave(&self, name: &str, connection: Connection, said_so: bool) {
        self.with_group(name, |group, members, _| {
            members.0.remove(&connection);
            group.leave(connection, said_so);
        });
        self.left.notify_one();
    }
}

impl Members {
    fn tell(&mut self, orders: Vec<(Connection, Order)>) {
        for (connection, order) in orders {
            let Some(member) = self.0.get(&connection) else { continue };
            tracing::debug!(connection = connection.0, ?order, "told a member");
            // A member that does not read loses its connection, and with it its place.
            if member.try_send(Ok(order.into())).is_err() {
                self.0.remove(&connection);
            }
        }
    }
}

impl Service {
    /// The training of a caller and what it says, once it is known who it is.
    async fn let_in(
        &self,
        token: Option<String>,
        messages: &mut Streaming<FromMember>,
    ) -> Result<(String, Arrival), Status> {
        let _place = self.doorstep.acquire().await.map_err(|_| Status::unavailable("the service ends"))?;
        let first = messages.next().await.transpose()?.and_then(|message| message.message);
        let Some(from_member::Message::Introduction(introduction)) = first else {
            return Err(Status::invalid_argument("the first message must be an introduction"));
        };
        let understood = introduction.understood().map_err(Status::invalid_argument)?;
        let caller = Caller { token, group: introduction.group };
        match (self.admission)(caller).await {
            Ok(name) => Ok((name, understood)),
            Err(NotAdmitted::Refused(why)) => Err(Status::permission_denied(why)),
            Err(NotAdmitted::Unknown(why)) => Err(Status::unavailable(why)),
        }
    }
}

#[tonic::async_trait]
impl Rendezvous for Service {
    type AttendStream = Pin<Box<dyn Stream<Item = Result<ToMember, Status>> + Send>>;

    async fn attend(
        &self,
        request: Request<Streaming<FromMember>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
        let mut messages = request.into_inner();
        let letting_in = tokio::time::timeout(DOORSTEP, self.let_in(token, &mut messages));
        let (name, understood) = letting_in
            .await
            .map_err(|_| Status::deadline_exceeded("who you are was not clear in time"))??;

        let (sender, receiver) = mpsc::channel(UNREAD);
        let connection = {
            let mut groups = self.shared.groups.lock();
            if groups.by_name.len() >= MOST_GROUPS && !groups.by_name.contains_key(&name) {
                return Err(Status::resource_exhausted("there are too many trainings"));
            }
            // A service that is new itself does not know who works already.
            let comeback = self.shared.comeback;
            let now = self.shared.now();
            let complete_at = if now < comeback { now + comeback } else { Duration::ZERO };
            let known = groups
                .by_name
                .entry(name.clone())
                .or_insert_with(|| Known { group: Group::new(complete_at), empty_since: None });
            if known.group.len() >= MOST_MEMBERS {
                return Err(Status::resource_exhausted("there are too many members of this training"));
            }
            groups.connections += 1;
            Connection(groups.connections)
        };
        tracing::debug!(group = name, connection = connection.0, ?understood, "a member came");
        self.shared.with_group(&name, |group, members, now| {
            members.0.insert(connection, sender);
            group.arrive(now, connection, understood);
        });
        let (shared, over) = (self.shared.clone(), self.over.clone());
        tokio::spawn(async move {
            let mut said_so = false;
            while let Some(next) = over.run_until_cancelled(messages.next()).await {
                // A stream that its member ends is told from a connection that breaks.
                said_so = next.is_none();
                let Some(Ok(message)) = next else { break };
                match message.message {
                    Some(from_member::Message::Ready(Ready { epoch, address })) => {
                        let address = sound_address(address);
                        shared
                            .with_group(&name, |group, _, now| group.ready(now, connection, epoch, address));
                    }
                    Some(from_member::Message::Failed(Failed { epoch, report, most_restarts })) => {
                        let report = shortened(report);
                        shared.with_group(&name, |group, _, now| {
                            group.fail(now, connection, epoch, report, most_restarts);
                        });
                    }
                    Some(from_member::Message::EndedWell(EndedWell { epoch })) => {
                        shared.with_group(&name, |group, _, now| group.end_well(now, connection, epoch));
                    }
                    Some(from_member::Message::Finished(_)) => {
                        shared.with_group(&name, |group, _, _| group.finish());
                    }
                    Some(from_member::Message::Introduction(_)) | None => break,
                }
            }
            if over.is_cancelled() {
                // The end of the service is not that of its members.
                shared.groups.lock().members.0.remove(&connection);
            } else {
                shared.leave(&name, connection, said_so);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
