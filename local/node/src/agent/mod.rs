//! The agent: serves the Node objects of this machine and keeps a worker for every pod bound to one of them.

mod container;
mod context;
mod events;
mod log_files;
mod machine;
mod memory;
mod nodes;
mod peers;
mod pod_volumes;
mod pods;
mod probes;
mod record;
mod server;
mod services;
mod setup;
mod sweep;
mod watches;
mod worker;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use muster_machinery::watch::as_kept;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::context::Context;
use crate::options::Options;

pub use self::setup::tear_down;

/// Why the node cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder of the node.
    #[error("{0}; check that the folder exists, is writable and has room")]
    Io(#[from] std::io::Error),
    /// Another agent uses the state folder.
    #[error("another node agent uses {0}; stop it with `muster down`")]
    InUse(PathBuf),
    /// The spawner does not work.
    #[error("{0}")]
    Spawner(String),
    /// Full isolation was asked for and the machine refuses.
    #[error("this machine refuses full isolation: {0}; run as root, or use `--isolation light`")]
    Isolation(String),
    /// The network of the pods cannot be made.
    #[error("cannot make the pods' network: {0}")]
    Network(#[from] crate::network::Error),
    /// A quantity of a node description.
    #[error("node {node}: {field} \"{value}\" is not a quantity such as `8`, `500m` or `16Gi`")]
    Quantity {
        /// Which node.
        node: String,
        /// Which field.
        field: &'static str,
        /// What it says.
        value: String,
    },
}

/// A node that is set up and ready to run.
pub struct Service {
    context: Arc<Context>,
    nodes: Vec<nodes::NodeSpec>,
    listener: tokio::net::UnixListener,
    events: tokio::sync::mpsc::Receiver<events::Event>,
    handle: Handle,
    _lock: fs_err::File,
}

/// What others may ask of a running node.
#[derive(Debug, Clone)]
pub struct Handle {
    socket: PathBuf,
    state_dir: PathBuf,
    isolation: Arc<str>,
    light_because: Option<Arc<str>>,
    ready: watch::Receiver<bool>,
    ready_sender: Arc<watch::Sender<bool>>,
}

impl Handle {
    /// Where the kubelet-like HTTP API listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `full`, `user` (namespaces inside a user namespace, on the machine's network) or `light`.
    pub fn isolation(&self) -> &str {
        &self.isolation
    }

    /// Why the isolation is not full, if it is not.
    pub fn light_because(&self) -> Option<&str> {
        self.light_because.as_deref()
    }

    /// Returns once the Node objects are in the API and pods are being watched.
    pub async fn ready(&self) {
        let _ = self.ready.clone().wait_for(|ready| *ready).await;
    }

    /// The folder of pods and logs, for [`tear_down`].
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }
}

impl Options {
    /// Finds out what the machine allows, sets up the network and takes stock of pods that are still running.
    pub async fn build(self) -> Result<Service, Error> {
        setup::build(self).await
    }
}

impl Service {
    /// What others may ask.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until the shutdown. Pods keep running and are taken over by the next agent of the same state folder;
    /// [`tear_down`] ends them.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self { context, nodes, listener, events, handle, _lock } = self;
        let mut tasks = JoinSet::new();
        tasks.spawn(events::tell(context.client.clone(), events));
        tasks.spawn(server::serve(context.clone(), listener));
        tasks.spawn(services::serve(context.clone()));
        tasks.spawn(watches::follow_config_maps(context.clone()));
        tasks.spawn(watches::follow_secrets(context.clone()));
        let first_nodes = nodes::register(&context, &nodes).await;
        let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
        tasks.spawn(nodes::keep_alive(context.clone(), nodes, first_nodes));
        let pods = follow_pods(context, names, handle.ready_sender.clone());
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = pods => {}
        }
        tasks.shutdown().await;
        Ok(())
    }
}

/// Watches the pods of all own nodes and keeps a worker for each.
async fn follow_pods(context: Arc<Context>, nodes: Vec<String>, ready: Arc<watch::Sender<bool>>) {
    let mut pods = pods::Pods::new(context.clone());
    let api: Api<Pod> = Api::all(context.client.clone());
    let config = watcher::Config::default().fields("spec.nodeName!=");
    let events = watcher(api, config).modify(as_kept);
    let mut stream = events.backoff(muster_machinery::watch::backoff()).boxed();
    let mut listed = HashSet::new();
    loop {
        let event = tokio::select! {
            event = stream.try_next() => event,
            () = pods.settle() => continue,
        };
        let pod = match event {
            Ok(Some(watcher::Event::Init)) => {
                listed.clear();
                continue;
            }
            Ok(Some(watcher::Event::InitApply(pod))) => {
                listed.extend(pod.metadata.uid.clone());
                pod
            }
            Ok(Some(watcher::Event::Apply(pod))) => pod,
            Ok(Some(watcher::Event::Delete(pod))) => {
                if let Some(uid) = &pod.metadata.uid {
                    pods.remove(uid);
                }
                continue;
            }
            Ok(Some(watcher::Event::InitDone)) => {
                pods.keep_only(&listed).await;
                ready.send_replace(true);
                continue;
            }
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "the watch on pods was interrupted");
                continue;
            }
        };
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        if node.is_some_and(|node| nodes.contains(node)) {
            pods.apply(pod);
        }
    }
}
