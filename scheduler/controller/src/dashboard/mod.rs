//! The REST answer for dashboards: why gangs wait and until when, queues, nodes, and what would be if.
//!
//! It reads and never writes. Every replica listens; the one whose planner leads answers, the others answer 503 and
//! name the leader. The planning loop hands out a picture of its planner when somebody asks ([`Handle`]) and goes on;
//! answers are worked out on the picture, within bounds. Who may see what is the Kubernetes API's to decide: it is
//! asked with the caller's own token.

mod access;
mod answer;
mod leader;
mod openapi;
mod privacy;
mod problem;
mod reply;
mod route;
mod view;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::Request;
use hyper::body::Incoming;
use kube::Client;
use muster_machinery::tls::{Served, TlsError};
use muster_machinery::{CancellationToken, server};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use problem::Refusal;
pub use view::Handle;
pub(crate) use view::Leading;

use crate::certificates::{self, CertificateError, CertificateFiles};
use crate::picture::Supposed;
use crate::planner::Planner;
use access::Gate;
use answer::Desk;
use leader::Leader;

/// What is supposed to be different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supposition {
    /// Objects that would come now, as YAML or JSON.
    pub manifest: Option<String>,
    /// The namespace of those that name none.
    pub namespace: String,
    /// So many more nodes, and the node that they are like.
    pub more_nodes: Option<(u16, String)>,
}

/// Whoever knows what pods the objects of a manifest would have.
pub trait Suppose: Send + Sync + 'static {
    /// Tells a picture of the planner of the pods and nodes that are supposed to be there. `caller` speaks for the
    /// caller, who must be allowed whatever is asked of the API server.
    fn suppose(
        &self,
        supposition: Supposition,
        planner: Planner,
        caller: Client,
    ) -> BoxFuture<'static, Result<Supposed, Refusal>>;
}

/// Bounds of what callers can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest body in bytes.
    pub body: usize,
    /// How long a body may take to arrive.
    pub patience: Duration,
    /// How long an answer may take once the request is there.
    pub deadline: Duration,
    /// Requests that are answered at a time.
    pub requests: usize,
    /// What-ifs among them.
    pub what_ifs: usize,
    /// How long a decision of the API server about who may see what counts.
    pub rights: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 4 << 20,
            patience: Duration::from_secs(10),
            deadline: Duration::from_secs(20),
            requests: 64,
            what_ifs: 2,
            rights: Duration::from_secs(10),
        }
    }
}

/// Why the dashboard's server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Without TLS anybody on the way could read the callers' tokens.
    #[error("{0} is not a loopback address: give a certificate and a key to serve the dashboard by TLS")]
    NeedsTls(SocketAddr),
    /// The files of the certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The certificate or its key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address.
    #[error("cannot listen on {address} for the dashboard: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// How to run the dashboard's server.
#[derive(Clone)]
pub struct Options {
    /// The cluster, to find out who leads.
    pub client: Client,
    /// The same without any credentials: callers bring their own.
    pub anonymous: Client,
    /// The address; port 0 for any. Without a certificate it must be of the loopback.
    pub listen: SocketAddr,
    /// Certificate and key.
    pub certificates: Option<CertificateFiles>,
    /// Namespace and name of the Lease by which replicas elect the one whose planner leads.
    pub lease: Option<(String, String)>,
    /// What pods a manifest means.
    pub suppose: Arc<dyn Suppose>,
    /// Bounds.
    pub limits: Limits,
}

impl Options {
    /// Plain HTTP on any port of the loopback address, for one replica.
    pub fn new(client: Client, anonymous: Client, suppose: Arc<dyn Suppose>) -> Self {
        Self {
            client,
            anonymous,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            certificates: None,
            lease: None,
            suppose,
            limits: Limits::default(),
        }
    }

    /// Opens the address. Requests are answered 503 until a planner leads that has the handle.
    ///
    /// # Errors
    /// When the certificate cannot be used or the address cannot be served.
    pub async fn build(self) -> Result<(Service, Handle), StartError> {
        let address = self.listen;
        if self.certificates.is_none() && !address.ip().is_loopback() {
            return Err(StartError::NeedsTls(address));
        }
        let tls = self.certificates.map(Tls::read).transpose()?;
        let listening = TcpListener::bind(address).await.and_then(|listener| {
            let address = listener.local_addr()?;
            Ok((listener, address))
        });
        let (listener, address) = listening.map_err(|source| StartError::Listen { address, source })?;
        let (handle, limits) = (Handle::default(), self.limits);
        let desk = Desk {
            handle: handle.clone(),
            gate: Gate::new(self.anonymous, limits.rights),
            leader: Leader::new(self.client, self.lease),
            suppose: self.suppose,
            limits,
            requests: Semaphore::new(limits.requests),
            what_ifs: Arc::new(Semaphore::new(limits.what_ifs)),
        };
        Ok((Service { desk: Arc::new(desk), listener, address, tls }, handle))
    }
}

/// What a listener by TLS needs, and what it was read from.
struct Tls {
    files: CertificateFiles,
    read: (Vec<u8>, Vec<u8>),
    config: Arc<ServerConfig>,
    served: Arc<Served>,
}

impl Tls {
    /// Reads certificate and key; callers show tokens, not certificates.
    fn read(files: CertificateFiles) -> Result<Self, StartError> {
        let files = CertificateFiles { client_authority: None, ..files };
        let options = files.read()?;
        let (config, served) = options.server_config()?;
        Ok(Self { files, read: (options.certificate, options.key), config, served })
    }
}

/// The dashboard's server.
pub struct Service {
    desk: Arc<Desk>,
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
}

impl Service {
    /// Where it is found.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Answers until the shutdown, then lets open requests end.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { desk, listener, tls, .. } = self;
        let handler = move |request: Request<Incoming>| {
            let desk = desk.clone();
            async move { desk.answer(request).await }
        };
        let config = tls.as_ref().map(|tls| tls.config.clone());
        let serving = server::serve(listener, config, shutdown.clone(), handler);
        let renewing = async {
            if let Some(Tls { files, read, served, .. }) = tls {
                let serve = |certificate: &[u8], key: &[u8]| served.replace(certificate, key);
                shutdown.run_until_cancelled(certificates::renew(&files, read, serve)).await;
            }
        };
        tokio::join!(serving, renewing);
    }
}
