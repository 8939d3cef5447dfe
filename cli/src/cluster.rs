//! The embedded cluster: API server, node and controllers in one process, or some of them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use fs_err as fs;
use futures::TryStreamExt as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Resource as _;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Request;
use muster_machinery::CancellationToken;
use muster_scheduler_controller::dashboard::{Handle, Service};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::agent::{Agent, AgentOptions};
use crate::commands::crds::Definitions;
use crate::dashboard::{self, Place};
use crate::error::Error;
use crate::home::Home;
use crate::rendezvous::RendezvousOptions;
use crate::roles::{Role, RoleOptions};
use crate::runtimes;

/// Longest wait for a part to end.
const STOP_DEADLINE: Duration = Duration::from_mins(1);
/// Definitions of kinds that are installed at once.
const INSTALLED_AT_ONCE: usize = 4;

/// How to run the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// State folder.
    pub(crate) home: Home,
    /// Where the API listens.
    pub(crate) listen: SocketAddr,
    /// Every write survives a power loss.
    pub(crate) durable: bool,
    /// The nodes to play, unless another process plays them.
    pub(crate) agent: Option<AgentOptions>,
    /// The roles of this process; others may be processes of their own.
    pub(crate) roles: Vec<Role>,
    /// Where the scheduler is asked by dashboards, if it is.
    pub(crate) dashboard: Option<Place>,
    /// Time between two looks of an autoscaler; Kubernetes' own when absent.
    pub(crate) autoscaler_period: Option<Duration>,
}

/// Who runs a part in a home folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Process id.
    pub(crate) pid: u32,
    /// Where dashboards ask the scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dashboard: Option<String>,
}

/// A running cluster.
pub(crate) struct Cluster {
    /// Reaches it.
    pub(crate) client: kube::Client,
    /// How long the start took.
    pub(crate) started_in: Duration,
    /// Where dashboards ask the scheduler.
    pub(crate) dashboard: Option<String>,
    home: Home,
    roles: JoinSet<Result<(), Error>>,
    stop_roles: CancellationToken,
    agent: Option<Agent>,
    server: tokio::task::JoinHandle<Result<(), Error>>,
    stop_server: CancellationToken,
    _lock: fs::File,
}

impl Cluster {
    /// Starts its parts and returns when they are ready for work.
    pub(crate) async fn start(options: Options) -> Result<Self, Error> {
        let began = Instant::now();
        let Options { home, listen, durable, agent, roles, dashboard, autoscaler_period } = options;
        let lock = lock(&home)?;
        let server = muster_apiserver::Options {
            listen: same_port_again(&home, listen),
            durable,
            node_socket: Some(home.node_socket()),
            ..muster_apiserver::Options::new(home.path())
        };
        let server = server
            .build()
            .await
            .map_err(|error| Error::from_source("the API server does not start", &error))?;
        let handle = server.handle();
        let stop_server = CancellationToken::new();
        let stopped = stop_server.clone();
        let server = tokio::spawn(async move {
            server.run(stopped).await.map_err(|error| Error::from_source("the API server failed", &error))
        });
        let client = handle.client();
        install_kinds(&client).await?;
        runtimes::install(&client).await?;
        let rendezvous = if roles.contains(&Role::Trainer) {
            Some(RendezvousOptions::embedded(&client).await?)
        } else {
            None
        };
        let offered = rendezvous.iter().flat_map(RendezvousOptions::addresses).collect();
        let agent = match agent {
            Some(agent) => {
                Some(Agent::start(&home, agent, client.clone(), Some(handle.address()), offered).await?)
            }
            None => None,
        };
        let stop_roles = CancellationToken::new();
        let mut role_options =
            RoleOptions { autoscaler_period, ..RoleOptions::embedded(home.volumes(), rendezvous) };
        let shown = match dashboard.filter(|_| roles.contains(&Role::Scheduler)) {
            Some(place) => Some(open_dashboard(place, &handle, &role_options).await?),
            None => None,
        };
        let dashboard = shown.as_ref().map(|(service, _)| service.url());
        role_options.dashboard = shown.as_ref().map(|(_, handle)| handle.clone());
        let mut roles: JoinSet<_> = roles
            .into_iter()
            .map(|role| role.run(role_options.clone(), client.clone(), stop_roles.clone()))
            .collect();
        if let Some((service, _)) = shown {
            let stop = stop_roles.clone();
            roles.spawn(async move {
                service.run(stop).await;
                Ok(())
            });
        }
        write_running(&home.running_file(), dashboard.clone())?;
        let started_in = began.elapsed();
        Ok(Self {
            client,
            started_in,
            dashboard,
            home,
            roles,
            stop_roles,
            agent,
            server,
            stop_server,
            _lock: lock,
        })
    }

    /// `full` or `light`, and why not full; nothing where another process plays the nodes.
    pub(crate) fn isolation(&self) -> Option<&str> {
        self.agent.as_ref().map(|agent| &*agent.isolation)
    }

    /// Waits until a part fails.
    pub(crate) async fn failed(&mut self) -> Error {
        let ended = |result: Result<Result<(), Error>, tokio::task::JoinError>| match result {
            Ok(Ok(())) => Error::new("a part of the cluster ended by itself"),
            Ok(Err(error)) => error,
            Err(error) => Error::from_source("a part of the cluster broke", &error),
        };
        let agent = async {
            match &mut self.agent {
                Some(agent) => agent.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(result) = self.roles.join_next() => ended(result),
            result = agent => ended(result),
            result = &mut self.server => ended(result),
        }
    }

    /// Stops the parts in order: those that decide, then the pods, then the API.
    pub(crate) async fn stop(mut self) -> Result<(), Error> {
        let deadline = |part: &'static str| {
            move |_| Error::new(format!("{part} did not end in {} s", STOP_DEADLINE.as_secs()))
        };
        self.stop_roles.cancel();
        let roles = async { while self.roles.join_next().await.is_some() {} };
        timeout(STOP_DEADLINE, roles).await.map_err(deadline("a controller"))?;
        let agent = match self.agent {
            Some(agent) => agent.stop(true).await,
            None => Ok(()),
        };
        self.stop_server.cancel();
        let server = timeout(STOP_DEADLINE, &mut self.server).await.map_err(deadline("the API server"))?;
        remove_if_there(&self.home.running_file())?;
        agent?;
        server.map_err(|error| Error::from_source("the API server broke", &error))?
    }
}

/// Opens the dashboard's address.
async fn open_dashboard(
    place: Place,
    api: &muster_apiserver::Handle,
    roles: &RoleOptions,
) -> Result<(Service, Handle), Error> {
    let kubeconfig = Kubeconfig::from_yaml(api.kubeconfig())
        .map_err(|error| Error::from_source("the cluster's kubeconfig", &error))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| Error::from_source("the cluster's kubeconfig", &error))?;
    let options = dashboard::Options {
        place,
        certificates: None,
        lease: None,
        gang_scheduler: roles.gang_scheduler_name.clone(),
    };
    options.open(config, api.client()).await
}

/// Port 0 takes the port of the last run while it is free: kubeconfigs, and what pods that went on know of the
/// API, stay right.
fn same_port_again(home: &Home, listen: SocketAddr) -> SocketAddr {
    let last = || -> Option<SocketAddr> {
        let kubeconfig = Kubeconfig::read_from(home.kubeconfig()).ok()?;
        let server = kubeconfig.clusters.first()?.cluster.as_ref()?.server.as_ref()?;
        let last: SocketAddr = server.strip_prefix("https://")?.parse().ok()?;
        let again = SocketAddr::new(listen.ip(), last.port());
        std::net::TcpListener::bind(again).is_ok().then_some(again)
    };
    if listen.port() == 0 { last().unwrap_or(listen) } else { listen }
}

/// Whoever holds the lock runs the cluster of this folder.
fn lock(home: &Home) -> Result<fs::File, Error> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(home.path())
        .map_err(|error| Error::from_source(&format!("cannot use {}", home.path().display()), &error))?;
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(home.path().join("cluster.lock"))?;
    match rustix::fs::flock(file.file(), FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let pid = running(&home.running_file())
                .map(|running| format!(" (process {})", running.pid))
                .unwrap_or_default();
            Err(Error::new(format!("a cluster already runs in {}{pid}", home.path().display()))
                .with_hint("`muster down` stops it; --home starts another one elsewhere"))
        }
        Err(error) => Err(Error::from_source("cannot lock the state folder", &error)),
    }
}

/// Whether an API server runs here.
pub(crate) fn is_running(home: &Home) -> bool {
    is_locked(&home.path().join("cluster.lock"))
}

/// Whether a process holds the lock.
pub(crate) fn is_locked(lock: &Path) -> bool {
    let Ok(file) = fs::OpenOptions::new().write(true).open(lock) else {
        return false;
    };
    rustix::fs::flock(file.file(), FlockOperation::NonBlockingLockShared)
        == Err(rustix::io::Errno::WOULDBLOCK)
}

/// Who wrote the file when it was ready.
pub(crate) fn running(file: &Path) -> Option<Running> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// Says that this process is ready.
pub(crate) fn write_running(file: &Path, dashboard: Option<String>) -> Result<(), Error> {
    write_atomically(file, &serde_json::to_vec(&Running { pid: std::process::id(), dashboard })?)
}

async fn install_kinds(client: &kube::Client) -> Result<(), Error> {
    let definitions = Definitions::load()?;
    let requests = Request::new(CustomResourceDefinition::url_path(&(), None));
    let parameters = PatchParams::apply("muster").force();
    let installing = definitions.embedded().map(|definition| {
        let definition = definition?;
        let name = definition.metadata.name.as_deref().unwrap_or_default();
        let request = requests
            .patch(name, &parameters, &Patch::Apply(&definition))
            .map_err(kube::Error::BuildRequest)?;
        // Nobody reads the answer, which says it all once more.
        Ok(async { Ok(client.request_text(request).await.map(drop)?) })
    });
    // A few at a time: each is some hundred kilobytes of text, and many times that while it is read.
    futures::stream::iter(installing).try_buffer_unordered(INSTALLED_AT_ONCE).try_collect::<()>().await
}

fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, bytes)?;
    Ok(fs::rename(&fresh, path)?)
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
