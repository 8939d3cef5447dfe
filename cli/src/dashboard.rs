//! The REST answer for dashboards: where it listens, and what callers may suppose.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::config::AuthInfo;
use kube::{Client, Config};
use muster_scheduler_controller::dashboard::{self, Handle, Refusal, Service, Suppose};
use muster_scheduler_controller::extender::CertificateFiles;
use muster_scheduler_controller::picture::Supposed;
use muster_scheduler_controller::planner::Planner;

use crate::connect::Connection;
use crate::error::Error;
use crate::manifest;
use crate::supposition::Supposition;

/// What a manifest in a request is called in errors.
const MANIFEST: &str = "manifest";

/// Where dashboards look when nothing is said.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9403);

/// Where to listen.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// The usual address, or where another cluster of this machine has it, any other port.
    Usual,
    /// There and nowhere else.
    Named(SocketAddr),
}

/// How the dashboard is served.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The address.
    pub(crate) place: Place,
    /// Certificate and key.
    pub(crate) certificates: Option<CertificateFiles>,
    /// Namespace and name of the Lease by which the scheduler's replicas elect their leader.
    pub(crate) lease: Option<(String, String)>,
    /// Who schedules gangs of training jobs.
    pub(crate) gang_scheduler: String,
}

impl Options {
    /// Opens the address. `config` says where the API server is; its credentials are for this process, and callers
    /// bring their own.
    pub(crate) async fn open(self, mut config: Config, client: Client) -> Result<(Service, Handle), Error> {
        config.auth_info = AuthInfo::default();
        let anonymous = Client::try_from(config)?;
        let suppose = Arc::new(Manifests { gang_scheduler: self.gang_scheduler });
        let defaults = dashboard::Options::new(client, anonymous, suppose);
        let (certificates, lease) = (self.certificates, self.lease);
        let options = |listen| {
            let (certificates, lease) = (certificates.clone(), lease.clone());
            dashboard::Options { listen, certificates, lease, ..defaults.clone() }
        };
        let opened = match self.place {
            Place::Named(address) => options(address).build().await,
            Place::Usual => match options(USUAL).build().await {
                Err(_) => options(defaults.listen).build().await,
                opened => opened,
            },
        };
        opened.map_err(|error| {
            Error::from_source("the dashboard is not served", &error)
                .with_hint("name another address with --dashboard-listen")
        })
    }
}

/// Reads manifests as `muster whatif` does.
struct Manifests {
    gang_scheduler: String,
}

impl Suppose for Manifests {
    fn suppose(
        &self,
        supposition: dashboard::Supposition,
        planner: Planner,
        caller: Client,
    ) -> BoxFuture<'static, Result<Supposed, Refusal>> {
        let gang_scheduler = self.gang_scheduler.clone();
        async move {
            let dashboard::Supposition { manifest, namespace, more_nodes } = supposition;
            let documents = manifest.map(|text| manifest::parse(Path::new(MANIFEST), &text)).transpose();
            let documents = documents.map_err(|error| refusal(error.into()))?.unwrap_or_default();
            let supposition = Supposition {
                documents: &documents,
                more_nodes: more_nodes.as_ref().map(|(count, like)| (*count, like.as_str())),
                gang_scheduler: &gang_scheduler,
            };
            let connection = Connection { client: caller, namespace };
            Box::pin(supposition.tell(&connection, planner)).await.map_err(refusal)
        }
        .boxed()
    }
}

fn refusal(error: Error) -> Refusal {
    let (message, hint) = (error.message().to_owned(), error.hint().map(str::to_owned));
    Refusal { answered: error.answered(), message, hint }
}
