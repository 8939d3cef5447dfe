//! `muster controller`: Muster's roles against any Kubernetes, in as many replicas as wanted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use kube::{Client, Config};
use muster_machinery::exporter::Exporter;
use muster_machinery::leader::Timing;
use muster_machinery::shutdown;
use muster_machinery::telemetry::{self, Format, Target};
use muster_scheduler_controller::extender::{CertificateFiles, Endpoint};
use muster_trainer_core::mpi::{self, AgentSource};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::commands::topology;
use crate::connect;
use crate::dashboard::{self, Place};
use crate::error::{Error, USAGE};
use crate::home::Home;
use crate::output;
use crate::rendezvous::RendezvousArguments;
use crate::roles::{Candidacy, ExtenderOptions, Role, RoleOptions};

/// Where Prometheus finds the figures of a controller.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9402);

/// Runs Muster's controllers against a Kubernetes cluster
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster controller --kubeconfig ~/.kube/config\n  muster controller --only trainer --gang-scheduler-name volcano\n  muster controller --leader-elect            # several replicas, of which one leads\n  muster controller --only extender --extender-listen 0.0.0.0:8443 \\\n    --tls-cert tls.crt --tls-key tls.key --client-ca ca.crt\n  muster controller --dashboard-listen 127.0.0.1:9403   # a REST API; its callers show Kubernetes' own tokens\n\nBeside `muster up --only apiserver,node`, where nobody else does this work:\n  muster controller --kubeconfig ~/.local/share/muster/kubeconfig \\\n    --only trainer,scheduler,built-in --scheduler-names muster,default-scheduler"
)]
pub(crate) struct Arguments {
    /// Kubeconfig [default: $KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Which roles to run
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["trainer", "scheduler"], value_name = "ROLE")]
    only: Vec<Role>,
    /// Only jobs of this namespace [default: all]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Who schedules gangs: muster, volcano, a scheduler-plugins scheduler's name, or nothing
    #[arg(long, default_value = "muster", value_name = "NAME")]
    gang_scheduler_name: String,
    /// The cluster's domain, such as cluster.local, to be appended to the addresses in TF_CONFIG and in hostfiles
    #[arg(long, env = "CUSTOM_CLUSTER_DOMAIN", value_name = "DOMAIN")]
    cluster_domain: Option<String>,
    /// Which pods the scheduler binds, by their schedulerName
    #[arg(long, value_delimiter = ',', default_value = muster_scheduler_api::SCHEDULER_NAME, value_name = "NAME")]
    scheduler_names: Vec<String>,
    /// Slurm's topology.conf, when that says where nodes are and the cluster does not
    #[arg(long, value_name = "FILE")]
    topology_conf: Option<PathBuf>,
    #[command(flatten)]
    extender: ExtenderArguments,
    #[command(flatten)]
    rendezvous: RendezvousArguments,
    #[command(flatten)]
    mpi: MpiArguments,
    /// Address of the REST API for dashboards; without a certificate only of the loopback [default: not served]
    #[arg(long, value_name = "ADDRESS", help_heading = "Dashboard")]
    dashboard_listen: Option<SocketAddr>,
    #[command(flatten)]
    election: ElectionArguments,
    /// Address for Prometheus: /metrics, and /healthz [default: 127.0.0.1:9402, if it is free]
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    /// Log lines as JSON
    #[arg(long)]
    json_log: bool,
    /// State of the embedded cluster, where built-in makes the folders of volume claims [default: ~/.local/share/muster]
    #[arg(long, env = "MUSTER_HOME", value_name = "FOLDER")]
    home: Option<PathBuf>,
}

/// What MPI jobs are told.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "MPI jobs")]
struct MpiArguments {
    /// Image with the program muster, by which launchers reach workers without SSH and wait for them; or `path`, where
    /// the nodes are Muster's own and have it on the path of every pod [default: none]
    #[arg(long = "mpi-agent-image", value_name = "IMAGE")]
    agent_image: Option<String>,
}

impl MpiArguments {
    fn options(self) -> mpi::Options {
        let agent = self.agent_image.map(|image| match image.as_str() {
            "path" => AgentSource::OnPath,
            _ => AgentSource::Image(image),
        });
        mpi::Options { agent }
    }
}

/// How a kube-scheduler reaches the extender, and for which of its pods.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Extender")]
struct ExtenderArguments {
    /// Address for kube-scheduler's requests; without a certificate only of the loopback
    #[arg(long = "extender-listen", value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// kube-scheduler's profiles whose gangs and GPU pods it plans; others pass as they are
    #[arg(id = "extender_scheduler_names", long = "extender-scheduler-names", value_delimiter = ',', default_value = muster_scheduler_api::SCHEDULER_NAME, value_name = "NAME")]
    scheduler_names: Vec<String>,
    /// Certificate of the extender and the dashboard, with its chain, PEM; read again when it changes
    #[arg(long, value_name = "FILE", requires = "key")]
    tls_cert: Option<PathBuf>,
    /// Key of the certificate, PEM
    #[arg(id = "key", long = "tls-key", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Certificate authority of the callers, PEM: only those with a certificate of it are heard
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    client_ca: Option<PathBuf>,
    /// Service without a selector whose endpoint the leader makes itself, as NAMESPACE/NAME
    #[arg(long = "extender-service", value_name = "SERVICE", value_parser = namespace_and_name, requires = "advertise")]
    service: Option<(String, String)>,
    /// Address of this replica in that endpoint
    #[arg(id = "advertise", long = "extender-advertise", env = "POD_IP", value_name = "IP")]
    advertise: Option<IpAddr>,
}

/// Reads `NAMESPACE/NAME`.
pub(crate) fn namespace_and_name(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
    let (namespace, name) = parts.ok_or("it must be NAMESPACE/NAME")?;
    Ok((namespace.to_owned(), name.to_owned()))
}

impl ExtenderArguments {
    fn certificates(&self) -> Option<CertificateFiles> {
        let (certificate, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(CertificateFiles { certificate, key, client_authority: self.client_ca.clone() })
    }

    fn options(self) -> ExtenderOptions {
        let certificates = self.certificates();
        let endpoint = self.service.zip(self.advertise);
        ExtenderOptions {
            listen: Some(self.listen),
            certificates,
            scheduler_names: self.scheduler_names,
            endpoint: endpoint.map(|((namespace, service), address)| Endpoint {
                namespace,
                service,
                address,
            }),
        }
    }
}

/// Replicas and their leader, with the flags and defaults of Kubernetes' own controllers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Several replicas")]
struct ElectionArguments {
    /// Work only while leading: of the replicas with this flag one leads, for each role
    #[arg(long = "leader-elect")]
    elect: bool,
    /// Where the Leases are [default: the kubeconfig's namespace, or the pod's own]
    #[arg(long = "leader-elect-resource-namespace", value_name = "NAMESPACE", requires = "elect")]
    resource_namespace: Option<String>,
    /// How long a leader that is not heard of is waited for
    #[arg(long = "leader-elect-lease-duration", value_name = "DURATION", default_value = "15s", value_parser = duration, requires = "elect")]
    lease_duration: Duration,
    /// How long a leader works on without having renewed its lease
    #[arg(long = "leader-elect-renew-deadline", value_name = "DURATION", default_value = "10s", value_parser = duration, requires = "elect")]
    renew_deadline: Duration,
    /// How often a lease is tried for or renewed
    #[arg(long = "leader-elect-retry-period", value_name = "DURATION", default_value = "2s", value_parser = duration, requires = "elect")]
    retry_period: Duration,
}

/// Reads `15s` or `500ms`, as Go writes durations.
fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(span).map_err(|_| "a duration cannot be negative".to_owned())
}

impl ElectionArguments {
    fn candidacy(&self, default_namespace: &str) -> Result<Option<Candidacy>, Error> {
        if !self.elect {
            return Ok(None);
        }
        let timing = Timing {
            lease_duration: self.lease_duration,
            renew_deadline: self.renew_deadline,
            retry_period: self.retry_period,
        };
        let timing = timing
            .checked()
            .map_err(|error| Error::from_source("leader election", &error).with_code(USAGE))?;
        let host = fs_err::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Ok(Some(Candidacy {
            namespace: self.resource_namespace.clone().unwrap_or_else(|| default_namespace.to_owned()),
            identity: format!("{}_{}_{:08x}", host.trim(), std::process::id(), rand::random::<u32>()),
            timing,
        }))
    }
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    refuse_two_planners(&arguments.only)?;
    refuse_a_dashboard_of_nobody(&arguments)?;
    let format = if arguments.json_log { Format::Json } else { Format::Text };
    telemetry::init(format, Target::StandardError, "info")?;
    let config = match &arguments.kubeconfig {
        Some(path) => connect::config(path, arguments.context.clone()).await?,
        None => Config::infer().await.map_err(|error| {
            Error::from_source("no cluster", &error).with_hint("name one with --kubeconfig")
        })?,
    };
    let candidacy = arguments.election.candidacy(&config.default_namespace)?;
    let client = Client::try_from(config.clone())?;
    let version = client.apiserver_version().await?;
    let roles = Role::each_once(&arguments.only);
    if roles.contains(&Role::BuiltIn) {
        refuse_beside_a_controller_manager(&client).await?;
    }
    let stop = shutdown::token_on_signal();
    let mut running: JoinSet<Result<(), Error>> = JoinSet::new();
    let mut shown = None;
    if let Some(listen) = arguments.dashboard_listen {
        let lease = |candidacy: &Candidacy| (candidacy.namespace.clone(), Role::Scheduler.lease().to_owned());
        let options = dashboard::Options {
            place: Place::Named(listen),
            certificates: arguments.extender.certificates(),
            lease: candidacy.as_ref().map(lease),
            gang_scheduler: arguments.gang_scheduler_name.clone(),
        };
        let (service, handle) = options.open(config, client.clone()).await?;
        output::note(&format!("the dashboard's API is at {}", service.url()));
        let stop = stop.clone();
        running.spawn(async move {
            service.run(stop).await;
            Ok(())
        });
        shown = Some(handle);
    }
    let options = RoleOptions {
        namespace: arguments.namespace,
        gang_scheduler_name: arguments.gang_scheduler_name,
        cluster_domain: arguments.cluster_domain.filter(|domain| !domain.is_empty()),
        scheduler_names: arguments.scheduler_names,
        topology: arguments.topology_conf.as_deref().map(topology::read_slurm).transpose()?,
        volumes: Home::find(arguments.home)?.volumes(),
        autoscaler_period: None,
        dashboard: shown,
        rendezvous: arguments.rendezvous.options(),
        mpi: arguments.mpi.options(),
        extender: arguments.extender.options(),
    };
    if let Some(listener) = listen_for_prometheus(arguments.metrics_listen).await? {
        let exporter = Exporter::install().map_err(|error| Error::from_source("metrics", &error))?;
        let stop = stop.clone();
        running.spawn(async move {
            exporter.serve(listener, stop).await;
            Ok(())
        });
    }
    // From here on nothing ends because the API server does not answer.
    output::note(&format!("connected to Kubernetes {}", version.git_version));
    for role in roles {
        let (options, client, stop) = (options.clone(), client.clone(), stop.clone());
        match candidacy.clone() {
            Some(candidacy) => running.spawn(role.run_elected(options, client, candidacy, stop)),
            None => running.spawn(role.run(options, client, stop)),
        };
    }
    while let Some(result) = running.join_next().await {
        result.map_err(|error| Error::from_source("a role broke", &error))??;
    }
    Ok(())
}

/// Each would plan on a ledger of its own, and give the same room away twice.
fn refuse_two_planners(only: &[Role]) -> Result<(), Error> {
    if !only.contains(&Role::Extender) || !(only.contains(&Role::Scheduler) || only.contains(&Role::Gates)) {
        return Ok(());
    }
    Err(Error::new("the extender and the scheduler cannot both plan the same cluster")
        .with_hint("run one of them: the extender with kube-scheduler, or the scheduler by itself")
        .with_code(USAGE))
}

/// What the dashboard shows is the scheduler's.
fn refuse_a_dashboard_of_nobody(arguments: &Arguments) -> Result<(), Error> {
    let plans = arguments.only.iter().any(|role| matches!(role, Role::Scheduler | Role::Gates));
    if arguments.dashboard_listen.is_none() || plans {
        return Ok(());
    }
    Err(Error::new("--dashboard-listen is for the scheduler's answers, and this process runs no scheduler")
        .with_hint(
            "give it where --only names scheduler or gates; the extender answers /queue and /explain itself",
        )
        .with_code(USAGE))
}

/// Where nobody asked for an address, one that is taken is done without: several controllers may share a machine.
async fn listen_for_prometheus(asked: Option<SocketAddr>) -> Result<Option<TcpListener>, Error> {
    let address = asked.unwrap_or(METRICS);
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if asked.is_none() => {
            tracing::info!(%error, %address, "metrics are not served");
            Ok(None)
        }
        Err(error) => Err(Error::from_source(&format!("cannot listen on {address} for metrics"), &error)
            .with_hint("name another address with --metrics-listen")),
    }
}

/// Two garbage collectors, or two Job controllers, would work against each other.
async fn refuse_beside_a_controller_manager(client: &Client) -> Result<(), Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    if leases.get_opt("kube-controller-manager").await?.is_none() {
        return Ok(());
    }
    Err(Error::new("this cluster has a kube-controller-manager, which does what built-in does")
        .with_hint("leave built-in out of --only; it is for `muster up --only apiserver`")
        .with_code(USAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_go() {
        assert_eq!(duration("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(duration("-1s").is_err() && duration("soon").is_err());
    }
}
