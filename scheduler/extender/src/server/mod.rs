//! `Options` → [`Service::run`] and [`Handle`]: the extender behind HTTPS.
//!
//! Requests never wait for planning or for the API server longer than kube-scheduler can spare: a filter call is
//! answered within 50 milliseconds, if need be by "planning", and kube-scheduler comes back.

mod http;
mod shared;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use muster_scheduler_core::{Node, PodKey};
use muster_scheduler_topology::import::TopologySources;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use muster_machinery::tls::{TlsError, TlsOptions};

use crate::core::{
    BindOutcome, BindPod, GangKey, GangReport, PodSeen, SeenReservation, Time, Timing, WriteOutcome,
    WriteReservation,
};
use crate::plans::Plans;
use muster_machinery::tls::Served;
use shared::Shared;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Without TLS anybody on the way could place pods.
    #[error("{0} is not a loopback address: give the extender a certificate and a key to serve it by TLS")]
    NeedsTls(SocketAddr),
    /// The certificate or its key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// The requests to the API server that the extender makes. Each must come to an end by itself.
pub trait Api: Send + Sync + 'static {
    /// Writes a reservation if the object still is what it replaces.
    fn write(&self, write: WriteReservation) -> BoxFuture<'static, WriteOutcome>;
    /// Binds a pod; a pod that has a node already is looked up.
    fn bind(&self, bind: BindPod) -> BoxFuture<'static, BindOutcome>;
    /// Reads whether a pod has a node: [`BindOutcome::AlreadyBound`], [`BindOutcome::NotBound`],
    /// [`BindOutcome::Gone`] or, when that cannot be read, [`BindOutcome::Unknown`].
    fn look(&self, bind: BindPod) -> BoxFuture<'static, BindOutcome>;
    /// Notes in the status that all of a reservation is bound.
    fn mark_bound(&self, gang: GangKey, epoch: i64) -> BoxFuture<'static, ()>;
    /// Removes a reservation of this version.
    fn remove(&self, gang: GangKey, resource_version: String) -> BoxFuture<'static, ()>;
}

/// What else the server shows, from those who know more than the extender.
pub trait Content: Send + Sync + 'static {
    /// Why a gang waits; without it, what the extender knows is shown.
    fn explain(&self, _namespace: &str, _gang: &str) -> Option<Value> {
        None
    }

    /// Who waits, in line; without it, what the extender knows is shown.
    fn queue(&self) -> Option<Value> {
        None
    }

    /// Metrics in Prometheus' text form.
    fn metrics(&self) -> String {
        String::new()
    }
}

/// Nothing more than what the extender knows.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoContent;

impl Content for NoContent {}

/// How to run the extender.
pub struct Options<P> {
    /// The address; port 0 for any.
    pub listen: SocketAddr,
    /// Certificate, key and who may call; may be absent on loopback only.
    pub tls: Option<TlsOptions>,
    /// The ledger, empty.
    pub plans: P,
    /// How long things may take.
    pub timing: Timing,
    /// The API server.
    pub api: Arc<dyn Api>,
    /// What else to show.
    pub content: Arc<dyn Content>,
}

impl<P: Plans> Options<P> {
    /// Plain HTTP on any port of the loopback address.
    pub fn loopback(plans: P, api: Arc<dyn Api>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            plans,
            timing: Timing::default(),
            api,
            content: Arc::new(NoContent),
        }
    }

    /// Opens the address.
    ///
    /// # Errors
    /// When it cannot be served.
    pub async fn build(self) -> Result<(Service<P>, Handle<P>), ServeError> {
        let address = self.listen;
        if self.tls.is_none() && !address.ip().is_loopback() {
            return Err(ServeError::NeedsTls(address));
        }
        let (tls, certificate) = self.tls.map(|tls| tls.server_config()).transpose()?.unzip();
        let listening = TcpListener::bind(address).await.and_then(|listener| {
            let address = listener.local_addr()?;
            Ok((listener, address))
        });
        let (listener, address) = listening.map_err(|source| ServeError::Listen { address, source })?;
        let shared = Arc::new(Shared::new(self.plans, self.timing, self.api, self.content));
        let handle = Handle { shared: shared.clone(), address, certificate };
        Ok((Service { shared, listener, tls }, handle))
    }
}

/// What the watches of nodes, pods and reservations say, each kind in order. After a lost watch: everything that
/// is there, and what is gone.
#[derive(Debug, Clone)]
pub enum Observed {
    /// A node appeared or changed.
    Node(Box<Node>),
    /// A node is gone.
    NodeGone(String),
    /// What was written down about where nodes are, beside their labels, has changed.
    Places(Box<TopologySources>),
    /// A pod appeared or changed.
    Pod(Box<PodSeen>),
    /// A pod is gone: name and uid.
    PodGone(PodKey, String),
    /// A reservation appeared or changed.
    Reservation(SeenReservation),
    /// A reservation is gone.
    ReservationGone(GangKey),
    /// All three kinds have been listed: calls are answered from now on.
    Synced,
}

/// A view of a running extender.
pub struct Handle<P: Plans> {
    shared: Arc<Shared<P>>,
    address: SocketAddr,
    certificate: Option<Arc<Served>>,
}

impl<P: Plans> Clone for Handle<P> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), address: self.address, certificate: self.certificate.clone() }
    }
}

impl<P: Plans> Handle<P> {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The time that the extender goes by: milliseconds since 1970.
    pub fn now(&self) -> Time {
        self.shared.now()
    }

    /// Tells what watches say. Within a Tokio runtime.
    pub fn observe(&self, observed: impl IntoIterator<Item = Observed>) {
        self.shared.tell(|core, now| {
            for one in observed {
                match one {
                    Observed::Node(node) => core.node_seen(now, *node),
                    Observed::Places(sources) => core.places_described(*sources),
                    Observed::NodeGone(name) => core.node_gone(now, &name),
                    Observed::Pod(pod) => core.pod_seen(now, *pod),
                    Observed::PodGone(pod, uid) => core.pod_gone(now, &pod, &uid),
                    Observed::Reservation(seen) => core.reservation_seen(now, seen),
                    Observed::ReservationGone(key) => core.reservation_gone(&key),
                    Observed::Synced => core.synced(now),
                }
            }
        });
    }

    /// Forgets everything that was seen, as a restart would: calls are refused until all is seen again, and the API
    /// server is reached by `api`. What is under way with the API server may land and is not heard of any more.
    /// Between two leaderships of a replica lies one of these.
    pub fn restart(&self, plans: P, api: Arc<dyn Api>) {
        self.shared.restart(plans, api);
    }

    /// Serves new connections with a renewed certificate.
    ///
    /// # Errors
    /// When the certificate or its key cannot be used; the one before stays. Nothing happens without TLS.
    pub fn renew(&self, certificate: &[u8], key: &[u8]) -> Result<(), TlsError> {
        match &self.certificate {
            Some(served) => served.replace(certificate, key),
            None => Ok(()),
        }
    }

    /// How far a gang has come.
    pub fn explain(&self, key: &GangKey) -> Option<GangReport> {
        self.shared.apply(|core, _| core.explain(key))
    }

    /// Gangs that are not bound, in line.
    pub fn queue(&self) -> Vec<GangReport> {
        self.shared.apply(|core, _| core.queue())
    }
}

/// How often time is let pass.
const TICK: Duration = Duration::from_secs(1);

/// The extender.
pub struct Service<P: Plans> {
    shared: Arc<Shared<P>>,
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl<P: Plans> Service<P> {
    /// Answers until the shutdown, then lets open requests end.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { shared, listener, tls } = self;
        let ticks = async {
            let mut ticks = tokio::time::interval(TICK);
            loop {
                ticks.tick().await;
                shared.apply(crate::ExtenderCore::tick);
            }
        };
        tokio::select! {
            () = http::serve(shared.clone(), listener, tls, shutdown) => {}
            () = ticks => {}
        }
        shared.end().await;
    }
}
