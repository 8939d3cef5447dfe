//! A rank's side: a thread that keeps the connection, and what it has heard.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use crate::group::{Bounds, Departure};
use crate::messages::rendezvous_client::RendezvousClient;
use crate::messages::{EndedWell, Failed, Finished, FromMember, Introduction, Ready, from_member, to_member};

/// Pause before connecting again.
const RETRY: Duration = Duration::from_millis(100);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(2);
/// How long the service may take to let this rank in.
const ANSWER: Duration = Duration::from_secs(15);
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
    /// As many ranks take part as may; this one gets a place when one of them has gone.
    #[error("the training has as many ranks as it may have: this one is in reserve at {address}")]
    InReserve {
        /// Where the rendezvous is.
        address: String,
    },
    /// The training had reached its end before this rank came.
    #[error("the training has reached its end without this rank")]
    Over,
    /// A rank has failed once too often.
    #[error("the training has failed: {report}")]
    Failed {
        /// Which, where and how, as it was told there.
        report: String,
    },
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
    /// How long an epoch, once there are enough members, waits for those that are expected; without it only the first does.
    pub last_call: Option<Duration>,
    /// Called whenever something was heard, from the thread that keeps the connection.
    pub news: Option<News>,
}

/// Somebody to tell that a member has heard something.
#[derive(Clone)]
pub struct News(Arc<dyn Fn() + Send + Sync>);

impl News {
    /// Calls this, which must return soon.
    pub fn new(tell: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
}

impl std::fmt::Debug for News {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("News")
    }
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
    /// How often failures that members told have begun an epoch so far.
    pub restarts: u32,
}

/// This rank at the rendezvous. Leaves it when dropped.
#[derive(Debug)]
pub struct Member {
    shared: Arc<Shared>,
    /// Taken when the member leaves.
    intent: Mutex<Option<watch::Sender<Intent>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What this rank wants the service to know. A state, not messages, so that nothing of it is lost with a connection.
#[derive(Clone, Debug, Default)]
struct Intent {
    /// It is done with epochs up to this one.
    done_with: u64,
    /// Where it listens in the next, if that is not where it said at first.
    listens: Option<String>,
    /// The last failure of its own.
    failure: Option<OwnFailure>,
    /// The last epoch whose part of this rank has ended well.
    ended_well: u64,
    /// The training has reached its end.
    is_finished: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct OwnFailure {
    epoch: u64,
    report: String,
    most_restarts: u32,
}

impl Intent {
    /// What an introduction says of it.
    fn introduced(&self) -> Self {
        Self { done_with: self.done_with, listens: self.listens.clone(), ..Self::default() }
    }

    /// What is to be said so that whoever knows `said` knows this; what concerns the epoch that ends comes first.
    fn messages_after(&self, said: &Self) -> Vec<FromMember> {
        let failed = self.failure.clone().filter(|_| self.failure != said.failure);
        let failed = failed.map(|OwnFailure { epoch, report, most_restarts }| {
            from_member::Message::Failed(Failed { epoch, report, most_restarts })
        });
        let ended_well = (self.ended_well > said.ended_well)
            .then_some(from_member::Message::EndedWell(EndedWell { epoch: self.ended_well }));
        let ready = || Ready { epoch: self.done_with, address: self.listens.clone().unwrap_or_default() };
        let ready = (self.done_with > said.done_with).then(|| from_member::Message::Ready(ready()));
        let finished =
            (self.is_finished && !said.is_finished).then_some(from_member::Message::Finished(Finished {}));
        [failed, ended_well, ready, finished].into_iter().flatten().map(FromMember::from).collect()
    }
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
    /// The newest place that was given.
    placement: Option<Placement>,
    /// This rank waits while as many take part as may.
    in_reserve: bool,
    /// The last one that was told.
    departure: Option<Departure>,
    /// No more will be said.
    end: Option<Error>,
    trouble: Option<String>,
}

impl Heard {
    fn placed(&self, past: u64) -> Result<Option<Placement>, Error> {
        match (self.placement.as_ref().filter(|placement| placement.epoch > past), &self.end) {
            (None, Some(end)) => Err(end.clone()),
            (placement, _) => Ok(placement.cloned()),
        }
    }
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
        let (intent, told) = watch::channel(Intent::default());
        let shared = Arc::new(Shared {
            options,
            heard: Mutex::default(),
            news: Condvar::new(),
            change: AtomicU64::new(0),
        });
        let keeper = shared.clone();
        let thread = std::thread::Builder::new()
            .name("rendezvous".into())
            .spawn(move || runtime.block_on(keeper.keep(&endpoints, told)))
            .map_err(|error| failed("start the thread of the rendezvous client")(&error))?;
        Ok(Self { shared, intent: Mutex::new(Some(intent)), thread: Mutex::new(Some(thread)) })
    }

    /// Waits for a place in an epoch after `past`, the one that this rank had last; 0 for none.
    pub fn place(&self, past: u64, patience: Duration) -> Result<Placement, Error> {
        let began = Instant::now();
        self.mean(|intent| intent.done_with = past);
        let mut heard = self.shared.heard.lock();
        loop {
            if let Some(placement) = heard.placed(past)? {
                return Ok(placement);
            }
            if self.shared.news.wait_until(&mut heard, began + patience).timed_out() {
                return Err(self.shared.no_place(&heard, patience));
            }
        }
    }

    /// Says that this rank waits for an epoch after `past`, as [`Self::place`] does, but does not wait itself; in that
    /// epoch it listens at `listens`.
    pub fn ask(&self, past: u64, listens: String) {
        self.mean(|intent| (intent.done_with, intent.listens) = (past, Some(listens)));
    }

    /// The place in an epoch after `past`, if there is one by now.
    pub fn placed(&self, past: u64) -> Result<Option<Placement>, Error> {
        self.shared.heard.lock().placed(past)
    }

    /// Why there is no place after waiting so long.
    pub fn no_place(&self, after: Duration) -> Error {
        self.shared.no_place(&self.shared.heard.lock(), after)
    }

    /// Says that this rank's part of an epoch has failed, so that all end theirs; it has yet to [`ask`](Self::ask) for the
    /// next. If failures have begun `most_restarts` epochs already, the training ends with [`Error::Failed`].
    pub fn fail(&self, epoch: u64, report: String, most_restarts: u32) {
        self.mean(|intent| intent.failure = Some(OwnFailure { epoch, report, most_restarts }));
    }

    /// Says that this rank's part of an epoch has ended well. When that is so of all, the training ends with
    /// [`Error::Over`].
    pub fn end_well(&self, epoch: u64) {
        self.mean(|intent| intent.ended_well = epoch);
    }

    /// Why the rendezvous cannot be reached, if it cannot.
    pub fn trouble(&self) -> Option<String> {
        self.shared.heard.lock().trouble.clone()
    }

    /// Others want to join: this rank's epoch should end at the next step that all its ranks have taken.
    pub fn is_change_wanted(&self, epoch: u64) -> bool {
        self.shared.change.load(Ordering::Relaxed) >= epoch
    }

    /// What others of an epoch say of its members, for whoever forms its group.
    pub fn watch(&self, epoch: u64) -> Watch {
        Watch { shared: self.shared.clone(), epoch }
    }

    /// Says that the training has reached its end, so that whoever still wants to join is told.
    pub fn finish(self) {
        self.mean(|intent| intent.is_finished = true);
        self.leave();
    }

    fn mean(&self, change: impl FnOnce(&mut Intent)) {
        if let Some(intent) = &*self.intent.lock() {
            intent.send_modify(change);
        }
    }

    /// Leaves the training. Returns when the service has heard of it, or does not answer for a while.
    pub fn leave(&self) {
        *self.intent.lock() = None;
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // It waits for nothing without a deadline; what it panics with is on standard error.
            let _ = thread.join();
        }
    }
}

/// Hears whether a member of an epoch is there no more.
#[derive(Clone, Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    epoch: u64,
}

impl Watch {
    /// The first one that has gone, or has given the epoch up.
    pub fn departure(&self) -> Option<Departure> {
        let heard = self.shared.heard.lock();
        heard.departure.clone().filter(|departure| departure.epoch == self.epoch)
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
    fn no_place(&self, heard: &Heard, after: Duration) -> Error {
        let (address, trouble) = (self.options.place(), heard.trouble.clone());
        match (heard.in_reserve, trouble) {
            (true, None) => Error::InReserve { address },
            (_, trouble) => Error::Timeout { address, after, trouble },
        }
    }

    fn tell(&self) {
        self.news.notify_all();
        if let Some(News(tell)) = &self.options.news {
            tell();
        }
    }

    /// Keeps a connection until this rank leaves.
    async fn keep(&self, endpoints: &[Endpoint], mut intent: watch::Receiver<Intent>) {
        let mut last_chance = None;
        for endpoint in endpoints.iter().cycle() {
            match self.attend(endpoint, &mut intent).await {
                Ended::Here => return,
                Ended::ForGood(error) => {
                    self.heard.lock().end = Some(error);
                    self.tell();
                    return;
                }
                Ended::Broken(trouble) => {
                    tracing::debug!(trouble, "the rendezvous cannot be reached");
                    let mut heard = self.heard.lock();
                    let is_new = heard.trouble.replace(trouble).is_none();
                    heard.in_reserve = false;
                    drop(heard);
                    if is_new {
                        self.tell();
                    }
                }
            }
            // A rank that leaves has nothing more to say, but for the end of the training.
            if intent.has_changed().is_err() {
                let until = *last_chance.get_or_insert_with(|| Instant::now() + FAREWELL);
                if Instant::now() > until {
                    return;
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn attend(&self, endpoint: &Endpoint, intent: &mut watch::Receiver<Intent>) -> Ended {
        let connected = tokio::select! {
            connected = endpoint.connect() => connected,
            () = left(intent) => return Ended::Here,
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
        let mut said = intent.borrow().introduced();
        let introduction = from_member::Message::Introduction(self.introduction(&said));
        if sender.send(introduction.into()).await.is_err() {
            return Ended::Broken("the stream ended before it began".into());
        }
        let mut client: RendezvousClient<Channel> = RendezvousClient::new(channel);
        let answered = tokio::select! {
            answered = tokio::time::timeout(ANSWER, client.attend(request)) => answered,
            () = left(intent) => return Ended::Here,
        };
        let mut answers = match answered {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return self.refused(&status),
            Err(_) => return Ended::Broken("it does not answer".into()),
        };
        self.heard.lock().trouble = None;
        loop {
            // What has been meant since the introduction, or since the last time.
            let meant = intent.borrow_and_update().clone();
            for message in meant.messages_after(&said) {
                if sender.send(message).await.is_err() {
                    return Ended::Broken("it ended the connection".into());
                }
            }
            said = meant;
            tokio::select! {
                answer = answers.next() => match answer {
                    Some(Ok(message)) => {
                        if let Some(to_member::Message::Over(over)) = message.message {
                            let report = over.failure;
                            let is_well = report.is_empty();
                            return Ended::ForGood(if is_well { Error::Over } else { Error::Failed { report } });
                        }
                        self.hear(message.message);
                    }
                    Some(Err(status)) => return self.refused(&status),
                    None => return Ended::Broken("it ended the connection".into()),
                },
                changed = intent.changed() => {
                    if changed.is_err() {
                        drop(sender);
                        // Until the service has taken what was said before.
                        let rest = async { while let Some(Ok(_)) = answers.next().await {} };
                        let _ = tokio::time::timeout(FAREWELL, rest).await;
                        return Ended::Here;
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

    /// What this rank says first, which means so much of it.
    fn introduction(&self, intent: &Intent) -> Introduction {
        let MemberOptions { member, group, host, listens, bounds, last_call, .. } = self.options.clone();
        let heard = self.heard.lock();
        let placement = heard.placement.as_ref();
        let (epoch, rank) = placement.map_or((0, 0), |placement| (placement.epoch, placement.rank));
        Introduction {
            member,
            group,
            host,
            address: intent.listens.clone().unwrap_or(listens),
            fewest: bounds.fewest as u32,
            expected: bounds.expected as u32,
            most: bounds.most as u32,
            epoch,
            rank: rank as u32,
            works: epoch > intent.done_with,
            last_call_milliseconds: last_call.map(|time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX)),
            restarts: placement.map_or(0, |placement| placement.restarts),
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
                    restarts: placement.restarts,
                });
                heard.in_reserve = false;
            }
            Some(to_member::Message::Change(change)) => {
                self.change.fetch_max(change.epoch, Ordering::Relaxed);
            }
            Some(to_member::Message::Reserve(_)) => self.heard.lock().in_reserve = true,
            Some(to_member::Message::Departure(departure)) => {
                let crate::messages::Departure { epoch, rank, host, has_left } = departure;
                self.heard.lock().departure = Some(Departure { epoch, rank: rank as usize, host, has_left });
            }
            Some(to_member::Message::Over(_)) | None => {}
        }
        self.tell();
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

/// Returns when this rank leaves, unless it still has to say that the training has reached its end.
async fn left(intent: &mut watch::Receiver<Intent>) {
    while intent.changed().await.is_ok() {}
    if intent.borrow().is_finished {
        std::future::pending::<()>().await;
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
