//! What the node is told: which Node objects to serve and how.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::images::ImageRule;

/// How far pods are kept apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Full where the machine allows it, else what an ordinary user may have, else light.
    #[default]
    Auto,
    /// Namespaces for processes, files, names and network; an error where the machine refuses.
    Full,
    /// Plain processes in their own session.
    Light,
}

/// One Node object that this machine plays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeDescription {
    /// Name of the Node.
    pub name: String,
    /// Its labels, besides those that the node sets itself.
    pub labels: BTreeMap<String, String>,
    /// GPU slots.
    pub gpus: u32,
    /// Processor cores, a quantity such as `8` or `500m`; `None` is what the machine has.
    pub cpus: Option<String>,
    /// Memory, a quantity such as `16Gi`; `None` is what the machine has.
    pub memory: Option<String>,
}

impl NodeDescription {
    /// A node with what the machine has and no GPU.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), labels: BTreeMap::new(), gpus: 0, cpus: None, memory: None }
    }
}

/// How patient the node is with clients of `exec`, `attach` and `port-forward`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamPatience {
    /// How often a client is asked whether it is there.
    pub ask: Duration,
    /// A client that leaves that and all else unanswered for so long is gone. Time in which its input is not read, because
    /// a command leaves it, does not count.
    pub silence: Duration,
    /// An attached client that takes nothing for so long of what a program prints is let go, so that the program goes on.
    pub stuck: Duration,
}

impl Default for StreamPatience {
    /// Clients that read only now and then have two minutes; a connection that is cut is noticed at the third question.
    fn default() -> Self {
        Self { ask: Duration::from_secs(15), silence: Duration::from_mins(2), stuck: Duration::from_secs(10) }
    }
}

/// How to run the node.
#[derive(Clone)]
pub struct Options {
    /// Reaches the API.
    pub client: kube::Client,
    /// The Node objects to serve.
    pub nodes: Vec<NodeDescription>,
    /// Folder for pods and logs; one agent at a time.
    pub state_dir: PathBuf,
    /// Where the kubelet-like HTTP API listens.
    pub socket: PathBuf,
    /// Which folder stands for which image; the first rule that matches wins.
    pub images: Vec<ImageRule>,
    /// Programs put first in the PATH of every pod: name and file.
    pub tools: Vec<(String, PathBuf)>,
    /// How far pods are kept apart.
    pub isolation: Isolation,
    /// Where the API server listens on this machine. With it pods find the API server as `kubernetes.default.svc` and
    /// in the usual variables; without it they are on their own.
    pub api_address: Option<SocketAddr>,
    /// Addresses of the machine itself that pods may reach where a Service leads to them; its others are out of reach.
    pub offered_addresses: Vec<SocketAddr>,
    /// How many processes and threads a pod may have at once; `None` is as many as the machine allows.
    pub pod_processes: Option<u64>,
    /// How long clients of streams may keep silent.
    pub stream_patience: StreamPatience,
    /// Command of the spawner; it must call [`crate::spawner_main`] before any thread exists.
    pub spawner: Vec<OsString>,
}

impl Options {
    /// The defaults: images of the machine itself, no tools, as much isolation as the machine allows.
    pub fn new(client: kube::Client, state_dir: impl Into<PathBuf>, spawner: Vec<OsString>) -> Self {
        let state_dir = state_dir.into();
        Self {
            client,
            nodes: Vec::new(),
            socket: state_dir.join("node.sock"),
            state_dir,
            images: ImageRule::defaults(),
            tools: Vec::new(),
            isolation: Isolation::Auto,
            api_address: None,
            offered_addresses: Vec::new(),
            pod_processes: None,
            stream_patience: StreamPatience::default(),
            spawner,
        }
    }
}
