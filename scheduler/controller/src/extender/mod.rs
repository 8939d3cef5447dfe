//! The extender as a role: kube-scheduler asks, the ledger answers, the API server keeps the reservations.
//!
//! Every replica listens. The one that leads watches the cluster and answers; the others answer 503, and
//! kube-scheduler tries again. So that it reaches the leader at once, the leader names itself in the
//! EndpointSlice of the [`Endpoint`]'s Service, which has no selector.

mod follow;
mod objects;
mod relist;
mod requests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use kube::Client;
use muster_machinery::CancellationToken;
use muster_machinery::leader::{Election, Leadership};
use muster_scheduler_api::SCHEDULER_NAME;
use muster_scheduler_core::Ledger;
use muster_scheduler_extender::core::Timing;
use muster_scheduler_extender::server::{self, Handle, NoContent, ServeError};
use muster_scheduler_topology::Topology;

pub use crate::certificates::{CertificateError, CertificateFiles};
pub use muster_machinery::Endpoint;
pub use requests::MANAGED_BY;

use crate::certificates;
use requests::Requests;

/// Why the extender cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The files of the certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The address or the certificate.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// How to run the extender.
#[derive(Clone)]
pub struct Options {
    /// The cluster.
    pub client: Client,
    /// The address; port 0 for any. Without a certificate it must be of the loopback.
    pub listen: SocketAddr,
    /// Certificate, key and who may call.
    pub certificates: Option<CertificateFiles>,
    /// kube-scheduler's profiles whose pods are planned; it may ask about others, which pass as they are.
    pub scheduler_names: Vec<String>,
    /// Where nodes are, when it is not to be read from the cluster.
    pub topology: Option<Topology>,
    /// How long things may take.
    pub timing: Timing,
    /// The Service to lead kube-scheduler here.
    pub endpoint: Option<Endpoint>,
}

impl Options {
    /// Plain HTTP on any port of the loopback address, for the profile `muster`.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            certificates: None,
            scheduler_names: vec![SCHEDULER_NAME.to_owned()],
            topology: None,
            timing: Timing::default(),
            endpoint: None,
        }
    }

    /// Opens the address. Calls are answered 503 until the service runs, leads and has seen the cluster.
    ///
    /// # Errors
    /// When the certificate cannot be used or the address cannot be served.
    pub async fn build(self) -> Result<Service, StartError> {
        let tls = match &self.certificates {
            Some(files) => Some(files.read()?),
            None => None,
        };
        let served = tls.as_ref().map(|tls| (tls.certificate.clone(), tls.key.clone()));
        let serve = server::Options {
            listen: self.listen,
            tls,
            plans: Ledger::default(),
            timing: self.timing,
            api: Arc::new(Requests::new(self.client.clone())),
            content: Arc::new(NoContent),
        };
        let (server, handle) = serve.build().await?;
        Ok(Service { options: self, server, handle, served })
    }
}

/// The extender.
pub struct Service {
    options: Options,
    server: server::Service<Ledger>,
    handle: Handle<Ledger>,
    /// Certificate and key as read.
    served: Option<(Vec<u8>, Vec<u8>)>,
}

impl Service {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.handle.address()
    }

    /// Answers until the shutdown: at once, or whenever this replica leads.
    pub async fn run(self, election: Option<Election>, shutdown: CancellationToken) {
        let Self { options, server, handle, served } = self;
        // Requests that are open are answered while this replica still leads.
        let closed = CancellationToken::new();
        let serving = async {
            server.run(shutdown.clone()).await;
            closed.cancel();
        };
        let term = |leadership: Leadership| term(&options, &handle, leadership, &closed);
        let answering = async {
            if let Some(election) = election {
                election.lead(options.client.clone(), &shutdown, term).await;
            } else {
                let client = options.client.clone();
                term(Leadership { client, shutdown: shutdown.clone() }).await;
            }
        };
        let renewing = async {
            if let (Some(files), Some(served)) = (&options.certificates, served) {
                let renew = |certificate: &[u8], key: &[u8]| handle.renew(certificate, key);
                shutdown.run_until_cancelled(certificates::renew(files, served, renew)).await;
            }
        };
        tokio::join!(serving, answering, renewing);
    }
}

/// Answers while this replica leads.
async fn term(
    options: &Options,
    handle: &Handle<Ledger>,
    leadership: Leadership,
    closed: &CancellationToken,
) {
    let Leadership { client, shutdown } = leadership;
    let requests = Arc::new(Requests::new(client.clone()));
    let standing = Standing { handle, requests: requests.clone() };
    handle.restart(Ledger::default(), requests.clone());
    let profiles: BTreeSet<String> = options.scheduler_names.iter().cloned().collect();
    let synced = CancellationToken::new();
    let tree = options.topology.clone();
    let following = follow::follow(&client, handle, &requests, profiles, tree, &synced);
    let leading_here = async {
        synced.cancelled().await;
        tracing::info!(address = %handle.address(), "answering kube-scheduler");
        match &options.endpoint {
            Some(endpoint) => endpoint.keep(&client, MANAGED_BY, &[("https", handle.address().port())]).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = following => {}
        () = leading_here => {}
        () = shutdown.cancelled() => closed.cancelled().await,
    }
    drop(standing);
}

/// Whoever no longer leads, however that came about, knows nothing any more and answers 503.
struct Standing<'a> {
    handle: &'a Handle<Ledger>,
    requests: Arc<Requests>,
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.handle.restart(Ledger::default(), self.requests.clone());
    }
}
