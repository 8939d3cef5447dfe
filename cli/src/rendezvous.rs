//! Where ranks of elastic jobs meet: beside the training controllers, so that it outlives each of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use fs_err as fs;
use k8s_openapi::api::core::v1::Service as KubeService;
use kube::api::{Api, Patch, PatchParams};
use muster_machinery::{CancellationToken, Endpoint};
use muster_rendezvous::{Bound, ServiceOptions};
use muster_trainer_controller::rendezvous::admission;
use muster_trainer_core::Rendezvous;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::commands::controller::namespace_and_name;
use crate::error::Error;
use crate::home::Home;

/// The Service through which pods of the embedded cluster reach it, and its namespace.
const SERVICE: &str = "muster-rendezvous";
const NAMESPACE: &str = "kube-system";
const PORT: u16 = 9445;
const FIELD_MANAGER: &str = "muster-trainer";
/// How long members of an earlier run may take to come back.
const COMEBACK: Duration = Duration::from_secs(2);

/// How the rendezvous runs.
#[derive(Debug, Clone)]
pub(crate) struct RendezvousOptions {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Certificate and key, PEM.
    pub(crate) certificate: Option<(String, String)>,
    /// What pods are told.
    pub(crate) told: Rendezvous,
    /// The Service that leads to the leader.
    pub(crate) endpoint: Option<Endpoint>,
}

/// Where ranks of elastic jobs meet
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Elastic jobs")]
pub(crate) struct RendezvousArguments {
    /// Address at which ranks of elastic jobs meet [default: they do not]
    #[arg(long = "rendezvous-listen", value_name = "ADDRESS", requires = "url")]
    listen: Option<SocketAddr>,
    /// What pods are told, such as https://muster-rendezvous.muster-system.svc:9445; several are tried in turn
    #[arg(
        id = "url",
        long = "rendezvous-url",
        value_delimiter = ',',
        value_name = "URL",
        requires = "listen"
    )]
    url: Vec<String>,
    /// Its certificate, with its chain, PEM; without one only an address of the loopback is served
    #[arg(long = "rendezvous-cert", value_name = "FILE", requires = "rendezvous_key")]
    rendezvous_cert: Option<PathBuf>,
    /// Key of the certificate, PEM
    #[arg(id = "rendezvous_key", long = "rendezvous-key", value_name = "FILE", requires = "rendezvous_cert")]
    rendezvous_key: Option<PathBuf>,
    /// Certificate authority by which pods know it, PEM [default: the certificate itself]
    #[arg(long = "rendezvous-ca", value_name = "FILE", requires = "rendezvous_cert")]
    rendezvous_ca: Option<PathBuf>,
    /// Service without a selector whose endpoint the leader makes itself, as NAMESPACE/NAME
    #[arg(long = "rendezvous-service", value_name = "SERVICE", value_parser = namespace_and_name, requires = "rendezvous_advertise")]
    rendezvous_service: Option<(String, String)>,
    /// Address of this replica in that endpoint
    #[arg(id = "rendezvous_advertise", long = "rendezvous-advertise", env = "POD_IP", value_name = "IP")]
    rendezvous_advertise: Option<IpAddr>,
}

impl RendezvousArguments {
    /// The options, if the rendezvous is wanted.
    pub(crate) fn options(self) -> Result<Option<RendezvousOptions>, Error> {
        let Some(listen) = self.listen else { return Ok(None) };
        let certificate = match self.rendezvous_cert.zip(self.rendezvous_key) {
            Some((certificate, key)) => Some((fs::read_to_string(certificate)?, fs::read_to_string(key)?)),
            None if listen.ip().is_loopback() => None,
            None => {
                let message = format!("--rendezvous-listen {listen} can be reached by others");
                return Err(
                    Error::new(message).with_hint("--rendezvous-cert and --rendezvous-key encrypt it")
                );
            }
        };
        let authority = match self.rendezvous_ca {
            Some(path) => Some(fs::read_to_string(path)?),
            None => certificate.as_ref().map(|(certificate, _)| certificate.clone()),
        };
        let endpoint = self.rendezvous_service.zip(self.rendezvous_advertise);
        let endpoint =
            endpoint.map(|((namespace, service), address)| Endpoint { namespace, service, address });
        Ok(Some(RendezvousOptions {
            listen,
            certificate,
            told: Rendezvous { addresses: self.url, authority },
            endpoint,
        }))
    }
}

/// What an embedded cluster keeps for pods that outlive it.
#[derive(Serialize, Deserialize)]
struct Kept {
    port: u16,
    certificate: String,
    key: String,
}

impl RendezvousOptions {
    /// For the embedded cluster: behind a Service, and on the loopback for pods that share the machine's network.
    pub(crate) async fn embedded(home: &Home, client: &kube::Client) -> Result<Self, Error> {
        let failed = |error: &dyn std::error::Error| {
            Error::new(format!("cannot make a certificate for the rendezvous: {error}"))
        };
        let path = home.path().join("rendezvous.json");
        let free = |port| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?.local_addr().ok();
        let kept = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Kept>(&bytes)?,
            Err(_) => {
                let names = vec![format!("{SERVICE}.{NAMESPACE}.svc"), "127.0.0.1".to_owned()];
                let issued = rcgen::generate_simple_self_signed(names).map_err(|error| failed(&error))?;
                let port = free(0).map_or(0, |address| address.port());
                let (certificate, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
                Kept { port, certificate, key }
            }
        };
        // The port of the last run is what pods know, but somebody else may have it now.
        let port = free(kept.port).or_else(|| free(0)).map_or(0, |address| address.port());
        let kept = Kept { port, ..kept };
        write_privately(path, &serde_json::to_vec(&kept)?)?;
        create_service(client).await?;
        let addresses =
            vec![format!("https://{SERVICE}.{NAMESPACE}.svc:{PORT}"), format!("https://127.0.0.1:{port}")];
        Ok(Self {
            listen: (Ipv4Addr::LOCALHOST, port).into(),
            told: Rendezvous { addresses, authority: Some(kept.certificate.clone()) },
            certificate: Some((kept.certificate, kept.key)),
            endpoint: Some(Endpoint {
                namespace: NAMESPACE.to_owned(),
                service: SERVICE.to_owned(),
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            }),
        })
    }

    /// Opens its address.
    pub(crate) async fn open(&self, client: &kube::Client) -> Result<Bound, Error> {
        let options = ServiceOptions {
            listen: self.listen,
            certificate: self.certificate.clone(),
            admission: admission(client.clone()),
            comeback: COMEBACK,
        };
        options.bind().await.map_err(|error| Error::from_source("the rendezvous does not start", &error))
    }

    /// Serves until the shutdown, and leads pods here.
    pub(crate) async fn run(
        &self,
        bound: Bound,
        client: kube::Client,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let port = bound.address().port();
        let serving = bound.run(shutdown);
        let leading = async {
            match &self.endpoint {
                Some(endpoint) => endpoint.keep(&client, FIELD_MANAGER, port).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            served = serving => served.map_err(|error| Error::from_source("the rendezvous failed", &error)),
            () = leading => Ok(()),
        }
    }
}

/// A Service without a selector; the leader is its endpoint.
async fn create_service(client: &kube::Client) -> Result<(), Error> {
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let services: Api<KubeService> = Api::namespaced(client.clone(), NAMESPACE);
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVICE},
        "spec": {"ports": [{"name": "https", "port": PORT, "protocol": "TCP"}]},
    });
    services.patch(SERVICE, &parameters, &Patch::Apply(service)).await?;
    Ok(())
}

/// Only the owner may read the key.
fn write_privately(path: PathBuf, bytes: &[u8]) -> Result<(), Error> {
    use fs_err::os::unix::fs::OpenOptionsExt as _;
    use std::io::Write as _;
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    Ok(fs::rename(fresh, path)?)
}
