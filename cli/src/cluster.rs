//! The embedded cluster: API server, built-in controllers, scheduler, training controllers and node in one
//! process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fs_err as fs;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use muster_machinery::CancellationToken;
use muster_node::{ImageRule, Isolation, NodeDescription};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::commands::crds;
use crate::error::Error;
use crate::home::Home;

/// Longest wait for the parts to be ready, and to end.
const START_DEADLINE: Duration = Duration::from_secs(30);
const STOP_DEADLINE: Duration = Duration::from_mins(1);

/// How to run the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// State folder.
    pub(crate) home: Home,
    /// The nodes to play.
    pub(crate) nodes: Vec<NodeDescription>,
    /// Where the API listens.
    pub(crate) listen: SocketAddr,
    /// Every write survives a power loss.
    pub(crate) durable: bool,
    /// Image rules before the default ones.
    pub(crate) images: Vec<ImageRule>,
    /// How far pods are kept apart.
    pub(crate) isolation: Isolation,
}

/// Who runs the cluster of a home folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Process id.
    pub(crate) pid: u32,
    /// Address of the API.
    pub(crate) address: SocketAddr,
}

/// A running cluster.
pub(crate) struct Cluster {
    /// Reaches it.
    pub(crate) client: kube::Client,
    /// `full` or `light`, and why not full.
    pub(crate) isolation: String,
    /// How long the start took.
    pub(crate) started_in: Duration,
    home: Home,
    roles: JoinSet<Result<(), Error>>,
    stop_roles: CancellationToken,
    node: tokio::task::JoinHandle<Result<(), Error>>,
    stop_node: CancellationToken,
    server: tokio::task::JoinHandle<Result<(), Error>>,
    stop_server: CancellationToken,
    _lock: fs::File,
}

impl Cluster {
    /// Starts all parts and returns when the cluster is ready for work.
    pub(crate) async fn start(options: Options) -> Result<Self, Error> {
        let began = Instant::now();
        let lock = lock(&options.home)?;
        let server = muster_apiserver::Options {
            listen: options.listen,
            durable: options.durable,
            node_socket: Some(options.home.node_socket()),
            ..muster_apiserver::Options::new(options.home.path())
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
        let stop_node = CancellationToken::new();
        let (node, isolation) =
            start_node(&options, client.clone(), handle.address(), stop_node.clone()).await?;
        let stop_roles = CancellationToken::new();
        let mut roles = JoinSet::new();
        start_roles(&mut roles, &options, &client, &stop_roles);
        let running = Running { pid: std::process::id(), address: handle.address() };
        write_atomically(&options.home.running_file(), &serde_json::to_vec(&running)?)?;
        Ok(Self {
            client,
            isolation,
            started_in: began.elapsed(),
            home: options.home,
            roles,
            stop_roles,
            node,
            stop_node,
            server,
            stop_server,
            _lock: lock,
        })
    }

    /// Waits until a part fails.
    pub(crate) async fn failed(&mut self) -> Error {
        let ended = |result: Result<Result<(), Error>, tokio::task::JoinError>| match result {
            Ok(Ok(())) => Error::new("a part of the cluster ended by itself"),
            Ok(Err(error)) => error,
            Err(error) => Error::from_source("a part of the cluster broke", &error),
        };
        tokio::select! {
            Some(result) = self.roles.join_next() => ended(result),
            result = &mut self.node => ended(result),
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
        self.stop_node.cancel();
        let node = timeout(STOP_DEADLINE, &mut self.node).await.map_err(deadline("the node"))?;
        muster_node::tear_down(&self.home.path().join("node"))
            .await
            .map_err(|error| Error::from_source("cannot clean up the pods", &error))?;
        self.stop_server.cancel();
        let server = timeout(STOP_DEADLINE, &mut self.server).await.map_err(deadline("the API server"))?;
        remove_if_there(&self.home.running_file())?;
        for result in [node, server] {
            result.map_err(|error| Error::from_source("a part of the cluster broke", &error))??;
        }
        Ok(())
    }
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
            let pid = running(home).map(|running| format!(" (process {})", running.pid)).unwrap_or_default();
            Err(Error::new(format!("a cluster already runs in {}{pid}", home.path().display()))
                .with_hint("`muster down` stops it; --home starts another one elsewhere"))
        }
        Err(error) => Err(Error::from_source("cannot lock the state folder", &error)),
    }
}

/// Whether the lock is held, that is, whether a cluster runs here.
pub(crate) fn is_running(home: &Home) -> bool {
    let Ok(file) = fs::OpenOptions::new().write(true).open(home.path().join("cluster.lock")) else {
        return false;
    };
    rustix::fs::flock(file.file(), FlockOperation::NonBlockingLockShared)
        == Err(rustix::io::Errno::WOULDBLOCK)
}

/// Who runs the cluster of this folder, when someone does and is ready.
pub(crate) fn running(home: &Home) -> Option<Running> {
    serde_json::from_slice(&fs::read(home.running_file()).ok()?).ok()
}

async fn install_kinds(client: &kube::Client) -> Result<(), Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let parameters = PatchParams::apply("muster").force();
    for crd in crds::all()? {
        let name = crd.metadata.name.clone().unwrap_or_default();
        api.patch(&name, &parameters, &Patch::Apply(&crd)).await?;
    }
    Ok(())
}

async fn start_node(
    options: &Options,
    client: kube::Client,
    api_address: SocketAddr,
    stop: CancellationToken,
) -> Result<(tokio::task::JoinHandle<Result<(), Error>>, String), Error> {
    let program = std::env::current_exe()?;
    let spawner = vec![program.clone().into_os_string(), crate::SPAWNER_COMMAND.into()];
    let mut node = muster_node::Options::new(client, options.home.path().join("node"), spawner);
    node.nodes.clone_from(&options.nodes);
    node.socket = options.home.node_socket();
    node.api_address = Some(api_address);
    node.isolation = options.isolation;
    node.images = options.images.iter().cloned().chain(ImageRule::defaults()).collect();
    node.tools =
        ["muster", "muster-train", "nslookup"].map(|name| (name.to_owned(), program.clone())).to_vec();
    let service =
        node.build().await.map_err(|error| Error::from_source("the node does not start", &error))?;
    let handle = service.handle();
    let isolation = match handle.light_because() {
        Some(reason) => format!("{} ({reason})", handle.isolation()),
        None => handle.isolation().to_owned(),
    };
    let task = tokio::spawn(async move {
        service.run(stop).await.map_err(|error| Error::from_source("the node failed", &error))
    });
    timeout(START_DEADLINE, handle.ready())
        .await
        .map_err(|_| Error::new("the node was not ready in time"))?;
    Ok((task, isolation))
}

fn start_roles(
    roles: &mut JoinSet<Result<(), Error>>,
    options: &Options,
    client: &kube::Client,
    stop: &CancellationToken,
) {
    let volumes: PathBuf = options.home.path().join("volumes");
    let controllers = muster_local_controllers::Options::new(client.clone(), volumes).build();
    let token = stop.clone();
    roles.spawn(async move {
        controllers
            .run(token)
            .await
            .map_err(|error| Error::from_source("the built-in controllers failed", &error))
    });
    let scheduler = muster_scheduler_controller::Options::only_scheduler(client.clone()).build();
    let token = stop.clone();
    roles.spawn(async move {
        scheduler.run(token).await;
        Ok(())
    });
    let trainer = muster_trainer_controller::Options {
        gang_scheduler_name: muster_scheduler_api::SCHEDULER_NAME.to_owned(),
        ..muster_trainer_controller::Options::default()
    };
    let (trainer, token) = (trainer.build(client.clone()), stop.clone());
    roles.spawn(async move {
        trainer.run(token).await;
        Ok(())
    });
}

fn write_atomically(path: &std::path::Path, bytes: &[u8]) -> Result<(), Error> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, bytes)?;
    Ok(fs::rename(&fresh, path)?)
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove_if_there(path: &std::path::Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
