//! Where ranks of elastic jobs meet: beside the training controllers, so that it outlives each of them.
//!
//! Whoever leads serves it, and is the one endpoint of a Service without a selector. Its certificate is kept in a Secret
//! of the Service's name, so that pods know the next leader as they knew the last.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use clap::Args;
use k8s_openapi::api::core::v1::{Secret, Service as KubeService};
use kube::api::{Api, Patch, PatchParams, PostParams};
use muster_machinery::{CancellationToken, Endpoint};
use muster_rendezvous::{Bound, ServiceOptions};
use muster_trainer_controller::rendezvous::admission;
use muster_trainer_core::Rendezvous;
use serde_json::json;

use crate::commands::controller::namespace_and_name;
use crate::error::Error;

/// The Service of the embedded cluster, as namespace and name.
const SERVICE: (&str, &str) = ("kube-system", "muster-rendezvous");
/// Its port, and where the rendezvous listens if nobody else does.
const PORT: u16 = 9445;
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
    /// Service without a selector, with port 9445, that leads pods to it, as NAMESPACE/NAME; the leader makes itself its
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
        Some(RendezvousOptions { listen: self.listen?, listener: None, endpoint })
    }
}

/// How the rendezvous runs.
#[derive(Debug, Clone)]
pub(crate) struct RendezvousOptions {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// What listens there already.
    listener: Option<Arc<TcpListener>>,
    /// The Service that leads to it.
    endpoint: Endpoint,
}

/// A rendezvous that listens.
pub(crate) struct Open {
    bound: Bound,
    endpoint: Endpoint,
    /// What pods are told.
    pub(crate) told: Rendezvous,
}

impl RendezvousOptions {
    /// For the embedded cluster: on the loopback, whose one port pods reach through the Service.
    pub(crate) async fn embedded(client: &kube::Client) -> Result<Self, Error> {
        // Another cluster of this machine may have the port.
        let open = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = open(PORT)
            .or_else(|_| open(0))
            .map_err(|error| Error::from_source("the rendezvous cannot listen", &error))?;
        let listen = listener.local_addr()?;
        let (namespace, name) = SERVICE;
        let services: Api<KubeService> = Api::namespaced(client.clone(), namespace);
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"ports": [{"name": "https", "port": PORT, "protocol": "TCP"}]},
        });
        services.patch(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(service)).await?;
        let endpoint =
            Endpoint { namespace: namespace.to_owned(), service: name.to_owned(), address: listen.ip() };
        Ok(Self { listen, listener: Some(Arc::new(listener)), endpoint })
    }

    /// Opens its address.
    pub(crate) async fn open(self, client: &kube::Client) -> Result<Open, Error> {
        let Self { listen, listener, endpoint } = self;
        let Endpoint { namespace, service, .. } = &endpoint;
        let name = format!("{service}.{namespace}.svc");
        let (certificate, key) = certificate(client, namespace, service, &name).await?;
        let options = ServiceOptions {
            listen,
            certificate: Some((certificate.clone(), key)),
            admission: admission(client.clone()),
            comeback: muster_rendezvous::COMEBACK,
            farewell: std::time::Duration::ZERO,
        };
        let bound = match listener {
            Some(listener) => options.on(listener.try_clone()?),
            None => options.bind().await,
        };
        let bound = bound.map_err(|error| Error::from_source("the rendezvous does not start", &error))?;
        let mut addresses = vec![format!("https://{name}:{PORT}")];
        // Pods without a network of their own are on the same loopback.
        if listen.ip().is_loopback() {
            addresses.push(format!("https://{}", bound.address()));
        }
        let told = Rendezvous { addresses, authority: Some(certificate) };
        Ok(Open { bound, endpoint, told })
    }
}

impl Open {
    /// Serves until the shutdown, and leads pods here.
    pub(crate) async fn run(self, client: kube::Client, shutdown: CancellationToken) -> Result<(), Error> {
        let port = self.bound.address().port();
        tokio::select! {
            served = self.bound.run(shutdown) => {
                served.map_err(|error| Error::from_source("the rendezvous failed", &error))
            }
            () = self.endpoint.keep(&client, FIELD_MANAGER, port) => Ok(()),
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
