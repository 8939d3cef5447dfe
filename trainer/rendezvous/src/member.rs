//! A rank's side: a thread that keeps the connection, and what it has heard.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use crate::group::Bounds;
use crate::messages::rendezvous_client::RendezvousClient;
use crate::messages::{Finished, FromMember, Introduction, Ready, from_member, to_member};

/// Pause before connecting again.
const RETRY: Duration = Duration::from_millis(100);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the last message may take to reach the service.
const FAREWELL: Duration = Duration::from_secs(5);
/// A service that does not answer for so long is gone.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(5));

/// Why a rank has no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The connection could not be prepared.
    #[error("cannot {action}: {message}")]
    Setup {
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        message: String,
    },
    /// The service turned this rank away for good.
    #[error("the rendezvous at {address} refuses this rank: {reason}")]
    Refused {
        /// Where it is.
        address: String,
        /// What it says.
        reason: String,
    },
    /// No epoch began in time.
    #[error("no place in the training within {after:?}: {}", waited_for(.address, .trouble.as_deref()))]
    Timeout {
        /// Where the rendezvous is.
        address: String,
        /// How long this rank waited.
        after: Duration,
        /// Why the rendezvous could not be reached, if it could not.
        trouble: Option<String>,
    },
    /// The training had reached its end before this rank came.
    #[error("the training has reached its end without this rank")]
    Over,
}

fn waited_for(address: &str, trouble: Option<&str>) -> String {
    match trouble {
        Some(trouble) => format!("the rendezvous at {address} cannot be reached: {trouble}"),
        None => format!("the rendezvous at {address} still waits for other ranks"),
    }
}

/// How a rank finds the rendezvous, and what it says there.
#[derive(Clone, Debug)]
pub struct MemberOptions {
    /// `http://host:port` or `https://host:port`, tried in turn.
    pub addresses: Vec<String>,
    /// Certificate authority of the service, PEM, for `https`.
    pub authority: Option<String>,
    /// File with the bearer token, read anew for each connection since it may be renewed.
    pub token_file: Option<PathBuf>,
    /// A name unlike that of any other member.
    pub member: String,
    /// Which training, where the service does not know its callers.
    pub group: String,
    /// What errors call this host.
    pub host: String,
    /// Where this rank listens if it becomes rank 0, as `host:port`; empty where ranks meet in a directory.
    pub listens: String,
    /// How many members the training may have.
    pub bounds: Bounds,
}

/// A place in an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Grows from group to group of a training.
    pub epoch: u64,
    /// This rank.
    pub rank: usize,
    /// How many ranks there are.
    pub world_size: usize,
    /// Where rank 0 listens, as it said itself.
    pub leader: String,
}

/// This rank at the rendezvous. Leaves it when dropped.
#[derive(Debug)]
pub struct Member {
    shared: Arc<Shared>,
    /// Taken when the member leaves.
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Command {
    Ready(u64),
    Finished,
}

#[derive(Debug)]
struct Shared {
    options: MemberOptions,
    heard: Mutex<Heard>,
    news: Condvar,
    /// The newest epoch that members were asked to end.
    change: AtomicU64,
}

/// What the service has said.
#[derive(Debug, Default)]
struct Heard {
    placement: Option<Placement>,
    /// The epoch that the caller has been given last.
    taken: u64,
    /// This rank is done with the epoch of its place.
    is_waiting: bool,
    /// No more will be said.
    end: Option<Error>,
    trouble: Option<String>,
}

impl Member {
    /// Goes to the rendezvous, which is looked for in the background.
    pub fn attend(options: MemberOptions) -> Result<Self, Error> {
        let failed =
            |action| move |error: &dyn std::fmt::Display| Error::Setup { action, message: error.to_string() };
        let endpoints = options.addresses.iter().map(|address| endpoint(&options, address));
        let endpoints = endpoints.collect::<Result<Vec<Endpoint>, Error>>()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed("start the rendezvous client")(&error))?;
        let (commands, received) = mpsc::unbounded_channel();
        let heard = Heard { is_waiting: true, ..Heard::default() };
        let shared = Arc::new(Shared {
            options,
            heard: Mutex::new(heard),
            news: Condvar::new(),
            change: AtomicU64::new(0),
        });
        let keeper = shared.clone();
        let thread = std::thread::Builder::new()
            .name("rendezvous".into())
            .spawn(move || runtime.block_on(keeper.keep(&endpoints, received)))
            .map_err(|error| failed("start the thread of the rendezvous client")(&error))?;
        Ok(Self { shared, commands: Some(commands), thread: Some(thread) })
    }

    /// Waits for a place in an epoch that follows the one this rank has had.
    pub fn place(&self, patience: Duration) -> Result<Placement, Error> {
        let began = Instant::now();
        let mut heard = self.shared.heard.lock();
        let past = heard.taken;
        if !heard.is_waiting && heard.placement.as_ref().is_some_and(|placement| placement.epoch == past) {
            heard.is_waiting = true;
            self.say(Command::Ready(past));
        }
        loop {
            let next = heard.placement.clone().filter(|placement| placement.epoch > past);
            if let Some(placement) = next {
                heard.taken = placement.epoch;
                return Ok(placement);
            }
            if let Some(end) = &heard.end {
                return Err(end.clone());
            }
            if self.shared.news.wait_until(&mut heard, began + patience).timed_out() {
                let trouble = heard.trouble.clone();
                return Err(Error::Timeout {
                    address: self.shared.options.place(),
                    after: patience,
                    trouble,
                });
            }
        }
    }

    /// Others want to join: this rank's epoch should end at the next step that all its ranks have taken.
    pub fn is_change_wanted(&self, epoch: u64) -> bool {
        self.shared.change.load(Ordering::Relaxed) >= epoch
    }

    /// Says that the training has reached its end, so that whoever still wants to join is told.
    pub fn finish(mut self) {
        self.say(Command::Finished);
        self.leave();
    }

    fn say(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // The thread ends only after a refusal, which `place` reports.
            let _ = commands.send(command);
        }
    }

    fn leave(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // It waits for nothing without a deadline; what it panics with is on standard error.
            let _ = thread.join();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
    }
}

impl MemberOptions {
    /// Where the rendezvous is, for people.
    fn place(&self) -> String {
        self.addresses.join(" or ")
    }
}

fn endpoint(options: &MemberOptions, address: &str) -> Result<Endpoint, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Setup {
        action: "use the address of the rendezvous",
        message: format!("{address}: {error}"),
    };
    let (every, patience) = KEEP_ALIVE;
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|error| failed(&error))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(every)
        .keep_alive_timeout(patience)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    match &options.authority {
        Some(authority) if address.starts_with("https:") => {
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
            endpoint.tls_config(tls).map_err(|error| failed(&error))
        }
        _ => Ok(endpoint),
    }
}

/// Why a connection ended.
enum Ended {
    /// This rank leaves.
    Here,
    /// The service says that nothing else follows.
    ForGood(Error),
    /// It may be reached again.
    Broken(String),
}

impl Shared {
    /// Keeps a connection until this rank leaves.
    async fn keep(&self, endpoints: &[Endpoint], mut commands: mpsc::UnboundedReceiver<Command>) {
        for endpoint in endpoints.iter().cycle() {
            match self.attend(endpoint, &mut commands).await {
                Ended::Here => return,
                Ended::ForGood(error) => {
                    self.heard.lock().end = Some(error);
                    self.news.notify_all();
                    return;
                }
                Ended::Broken(trouble) => {
                    tracing::debug!(trouble, "the rendezvous cannot be reached");
                    self.heard.lock().trouble = Some(trouble);
                }
            }
            tokio::time::sleep(RETRY).await;
            // Without a connection there is nobody to say it to; the introduction says what matters.
            while let Ok(command) = commands.try_recv() {
                tracing::debug!(?command, "left to the next introduction");
            }
            if commands.is_closed() {
                return;
            }
        }
    }

    async fn attend(&self, endpoint: &Endpoint, commands: &mut mpsc::UnboundedReceiver<Command>) -> Ended {
        let connected = tokio::select! {
            connected = endpoint.connect() => connected,
            () = closed(commands) => return Ended::Here,
        };
        let channel = match connected {
            Ok(channel) => channel,
            Err(error) => return Ended::Broken(chain(&error)),
        };
        let (sender, receiver) = mpsc::channel(16);
        let request = match self.request(receiver) {
            Ok(request) => request,
            Err(trouble) => return Ended::Broken(trouble),
        };
        let introduction = from_member::Message::Introduction(self.introduction());
        if sender.send(introduction.into()).await.is_err() {
            return Ended::Broken("the stream ended before it began".into());
        }
        let mut client: RendezvousClient<Channel> = RendezvousClient::new(channel);
        let answered = tokio::select! {
            answered = client.attend(request) => answered,
            () = closed(commands) => return Ended::Here,
        };
        let mut answers = match answered {
            Ok(response) => response.into_inner(),
            Err(status) => return self.refused(&status),
        };
        self.heard.lock().trouble = None;
        loop {
            tokio::select! {
                answer = answers.next() => match answer {
                    Some(Ok(message)) => {
                        if let Some(to_member::Message::Over(_)) = message.message {
                            return Ended::ForGood(Error::Over);
                        }
                        self.hear(message.message);
                    }
                    Some(Err(status)) => return self.refused(&status),
                    None => return Ended::Broken("it ended the connection".into()),
                },
                command = commands.recv() => {
                    let message = match command {
                        None => {
                            drop(sender);
                            // Until the service has taken what was said before.
                            let rest = async { while let Some(Ok(_)) = answers.next().await {} };
                            let _ = tokio::time::timeout(FAREWELL, rest).await;
                            return Ended::Here;
                        }
                        Some(Command::Ready(epoch)) => from_member::Message::Ready(Ready { epoch }),
                        Some(Command::Finished) => from_member::Message::Finished(Finished {}),
                    };
                    if sender.send(message.into()).await.is_err() {
                        return Ended::Broken("it ended the connection".into());
                    }
                }
            }
        }
    }

    fn request(
        &self,
        messages: mpsc::Receiver<FromMember>,
    ) -> Result<Request<ReceiverStream<FromMember>>, String> {
        let mut request = Request::new(ReceiverStream::new(messages));
        if let Some(path) = &self.options.token_file {
            let token = fs_err::read_to_string(path).map_err(|error| error.to_string())?;
            let value = MetadataValue::try_from(format!("Bearer {}", token.trim()));
            let mut value = value.map_err(|_| format!("{} holds no token", path.display()))?;
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }

    fn introduction(&self) -> Introduction {
        let MemberOptions { member, group, host, listens, bounds, .. } = self.options.clone();
        let heard = self.heard.lock();
        let (epoch, rank) =
            heard.placement.as_ref().map_or((0, 0), |placement| (placement.epoch, placement.rank));
        Introduction {
            member,
            group,
            host,
            address: listens,
            fewest: bounds.fewest as u32,
            expected: bounds.expected as u32,
            most: bounds.most as u32,
            epoch,
            rank: rank as u32,
            works: !heard.is_waiting,
        }
    }

    fn hear(&self, message: Option<to_member::Message>) {
        match message {
            Some(to_member::Message::Placement(placement)) => {
                let mut heard = self.heard.lock();
                heard.placement = Some(Placement {
                    epoch: placement.epoch,
                    rank: placement.rank as usize,
                    world_size: placement.world_size as usize,
                    leader: placement.leader,
                });
                heard.is_waiting = false;
                self.news.notify_all();
            }
            Some(to_member::Message::Change(change)) => {
                self.change.fetch_max(change.epoch, Ordering::Relaxed);
            }
            Some(to_member::Message::Over(_)) | None => {}
        }
    }

    fn refused(&self, status: &Status) -> Ended {
        match status.code() {
            Code::InvalidArgument
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::Unimplemented => {
                let address = self.options.place();
                Ended::ForGood(Error::Refused { address, reason: status.message().to_owned() })
            }
            _ => Ended::Broken(chain(status)),
        }
    }
}

/// Returns when this rank leaves; what it says meanwhile is for the introduction to say.
async fn closed(commands: &mut mpsc::UnboundedReceiver<Command>) {
    while let Some(command) = commands.recv().await {
        tracing::debug!(?command, "left to the next introduction");
    }
}

/// An error and its causes, which transports keep apart.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    let mut text = error.to_string();
    for cause in causes {
        text = format!("{text}: {cause}");
    }
    text
}
