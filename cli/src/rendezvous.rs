//! Where ranks of elastic jobs meet: beside the training controllers, so that it outlives each of them. Beside it is where
//! jobs on runtimes report their progress.
//!
//! Whoever leads serves it, and is the one endpoint of a Service without a selector. Its certificate is kept in a Secret
//! of the Service's name, so that pods know the next leader as they knew the last.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use clap::Args;
use k8s_openapi::api::core::v1::{Secret, Service as KubeService};
use kube::api::{Api, Patch, PatchParams, PostParams};
use muster_machinery::server::serve;
use muster_machinery::tls::TlsOptions;
use muster_machinery::{CancellationToken, Endpoint};
use muster_rendezvous::{Bound, ServiceOptions};
use muster_trainer_controller::rendezvous::admission;
use muster_trainer_controller::train_job::status_server::Reports;
use muster_trainer_core::Rendezvous;
use muster_trainer_core::train_job::StatusServer;
use rustls::ServerConfig;
use serde_json::json;

use crate::commands::controller::namespace_and_name;
use crate::error::Error;

/// The Service of the embedded cluster, as namespace and name.
const SERVICE: (&str, &str) = ("kube-system", "muster-rendezvous");
/// Its ports, by name, and where is listened if nobody else does: for the rendezvous and for reports of progress.
const PORTS: [(&str, u16); 2] = [("https", 9445), ("status", 9446)];
const FIELD_MANAGER: &str = "muster-trainer";

/// Where ranks of elastic jobs meet
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Elastic jobs")]
pub(crate) struct RendezvousArguments {
    /// Address at which ranks of elastic jobs meet [default: they do not]
    #[arg(
        id = "rendezvous_listen",
        long = "rendezvous-listen",
        value_name = "ADDRESS",
        requires = "rendezvous_service"
    )]
    listen: Option<SocketAddr>,
    /// Address at which jobs on runtimes report their progress [default: they cannot]
    #[arg(long = "trainer-status-listen", value_name = "ADDRESS", requires = "rendezvous_service")]
    status_listen: Option<SocketAddr>,
    /// Service without a selector, with ports https, 9445, and status, 9446, that leads pods to it, as NAMESPACE/NAME; the leader makes itself its
    /// endpoint, and keeps the certificate in a Secret of that name
    #[arg(id = "rendezvous_service", long = "rendezvous-service", value_name = "SERVICE", value_parser = namespace_and_name, requires_all = ["rendezvous_listen", "rendezvous_advertise"])]
    service: Option<(String, String)>,
    /// Address of this replica in that endpoint
    #[arg(id = "rendezvous_advertise", long = "rendezvous-advertise", env = "POD_IP", value_name = "IP")]
    advertise: Option<IpAddr>,
}

impl RendezvousArguments {
    /// The options, if the rendezvous is wanted.
    pub(crate) fn options(self) -> Option<RendezvousOptions> {
        let (namespace, service) = self.service?;
        let endpoint = Endpoint { namespace, service, address: self.advertise? };
        let place = |address| Place { address, listener: None };
        Some(RendezvousOptions {
            rendezvous: place(self.listen?),
            status: self.status_listen.map(place),
            endpoint,
        })
    }
}

/// Where something listens.
#[derive(Debug, Clone)]
struct Place {
    address: SocketAddr,
    /// What listens there already.
    listener: Option<Arc<TcpListener>>,
}

impl Place {
    /// On the loopback, at this port or, where another cluster of this machine has it, at any.
    fn local(port: u16) -> std::io::Result<Self> {
        let open = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = open(port).or_else(|_| open(0))?;
        Ok(Self { address: listener.local_addr()?, listener: Some(Arc::new(listener)) })
    }

    fn open(&self) -> std::io::Result<TcpListener> {
        let listener = match &self.listener {
            Some(listener) => listener.try_clone()?,
            None => TcpListener::bind(self.address)?,
        };
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

/// How the rendezvous runs.
#[derive(Debug, Clone)]
pub(crate) struct RendezvousOptions {
    rendezvous: Place,
    /// For reports of progress, if they are taken.
    status: Option<Place>,
    /// The Service that leads to both.
    endpoint: Endpoint,
}

/// A rendezvous that listens.
pub(crate) struct Open {
    bound: Bound,
    status: Option<(tokio::net::TcpListener, Arc<ServerConfig>)>,
    endpoint: Endpoint,
    /// What pods are told.
    pub(crate) told: Rendezvous,
    /// What pods of jobs on runtimes are told.
    pub(crate) status_server: Option<StatusServer>,
}

impl RendezvousOptions {
    /// For the embedded cluster: on the loopback, whose ports pods reach through the Service.
    pub(crate) async fn embedded(client: &kube::Client) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::from_source("the rendezvous cannot listen", &error);
        let [rendezvous, status] = PORTS.map(|(_, port)| Place::local(port));
        let (rendezvous, status) = (rendezvous.map_err(failed)?, status.map_err(failed)?);
        let (namespace, name) = SERVICE;
        let services: Api<KubeService> = Api::namespaced(client.clone(), namespace);
        let ports = PORTS.map(|(name, port)| json!({"name": name, "port": port, "protocol": "TCP"}));
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"ports": ports},
        });
        services.patch(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(service)).await?;
        let address = rendezvous.address.ip();
        let endpoint = Endpoint { namespace: namespace.to_owned(), service: name.to_owned(), address };
        Ok(Self { rendezvous, status: Some(status), endpoint })
    }

    /// Where pods must be able to come.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        [Some(&self.rendezvous), self.status.as_ref()]
            .into_iter()
            .flatten()
            .map(|place| place.address)
            .collect()
    }

    /// Opens its addresses.
    pub(crate) async fn open(self, client: &kube::Client) -> Result<Open, Error> {
        let Self { rendezvous, status, endpoint } = self;
        let Endpoint { namespace, service, .. } = &endpoint;
        let name = format!("{service}.{namespace}.svc");
        let (certificate, key) = certificate(client, namespace, service, &name).await?;
        let options = ServiceOptions {
            listen: rendezvous.address,
            certificate: Some((certificate.clone(), key.clone())),
            admission: admission(client.clone()),
            comeback: muster_rendezvous::COMEBACK,
            farewell: std::time::Duration::ZERO,
        };
        let bound = match rendezvous.listener {
            Some(listener) => options.on(listener.try_clone()?),
            None => options.bind().await,
        };
        let bound = bound.map_err(|error| Error::from_source("the rendezvous does not start", &error))?;
        let [(_, port), (_, status_port)] = PORTS;
        let mut addresses = vec![format!("https://{name}:{port}")];
        // Pods without a network of their own are on the same loopback.
        if rendezvous.address.ip().is_loopback() {
            addresses.push(format!("https://{}", bound.address()));
        }
        let told = Rendezvous { addresses, authority: Some(certificate.clone()) };
        let status_server = status.is_some().then(|| StatusServer {
            address: format!("https://{name}:{status_port}"),
            authority: certificate.clone(),
        });
        let status = status.map(|place| listen_for_status(&place, &certificate, &key)).transpose()?;
        Ok(Open { bound, status, endpoint, told, status_server })
    }
}

fn listen_for_status(
    place: &Place,
    certificate: &str,
    key: &str,
) -> Result<(tokio::net::TcpListener, Arc<ServerConfig>), Error> {
    let failed =
        |error: &dyn std::error::Error| Error::from_source("reports of progress cannot be taken", error);
    let listener =
        place.open().and_then(tokio::net::TcpListener::from_std).map_err(|error| failed(&error))?;
    let (certificate, key) = (certificate.as_bytes().to_vec(), key.as_bytes().to_vec());
    let options = TlsOptions { certificate, key, client_authority: None };
    let (config, _) = options.server_config().map_err(|error| failed(&error))?;
    Ok((listener, config))
}

impl Open {
    /// Serves until the shutdown, and leads pods here.
    pub(crate) async fn run(self, client: kube::Client, shutdown: CancellationToken) -> Result<(), Error> {
        let [(rendezvous, _), (status, _)] = PORTS;
        let mut ports = vec![(rendezvous, self.bound.address().port())];
        if let Some((listener, _)) = &self.status {
            ports.push((status, listener.local_addr()?.port()));
        }
        let reports = Reports::new(client.clone());
        let taking = async {
            match self.status {
                Some((listener, tls)) => {
                    serve(listener, Some(tls), shutdown.clone(), move |call| reports.clone().answer(call))
                        .await;
                }
                None => shutdown.cancelled().await,
            }
        };
        let meeting = async {
            tokio::select! {
                served = self.bound.run(shutdown.clone()) => {
                    served.map_err(|error| Error::from_source("the rendezvous failed", &error))
                }
                () = self.endpoint.keep(&client, FIELD_MANAGER, &ports) => Ok(()),
            }
        };
        tokio::select! {
            met = meeting => met,
            () = taking => Ok(()),
        }
    }
}

/// Certificate and key of the Secret, which is made if it is not there.
async fn certificate(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    host: &str,
) -> Result<(String, String), Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    if let Some(pair) = secrets.get_opt(name).await?.as_ref().and_then(pair) {
        return Ok(pair);
    }
    let hosts = vec![host.to_owned(), Ipv4Addr::LOCALHOST.to_string()];
    let issued = rcgen::generate_simple_self_signed(hosts)
        .map_err(|error| Error::from_source("cannot make a certificate for the rendezvous", &error))?;
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name},
        "stringData": {"tls.crt": issued.cert.pem(), "tls.key": issued.signing_key.serialize_pem()},
    });
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let secret = match secrets.create(&parameters, &serde_json::from_value(secret)?).await {
        // Another replica was quicker, or somebody keeps something else there.
        Err(kube::Error::Api(status)) if status.code == 409 => secrets.get(name).await?,
        made => made?,
    };
    pair(&secret).ok_or_else(|| {
        Error::new(format!("the Secret {namespace}/{name} holds no tls.crt and tls.key"))
            .with_hint("delete it, and another one is made")
    })
}

fn pair(secret: &Secret) -> Option<(String, String)> {
    let data = secret.data.as_ref()?;
    let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
    Some((text("tls.crt")?, text("tls.key")?))
}
