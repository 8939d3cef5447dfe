//! The node, as a part of `muster up` or as the process `muster node`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use muster_machinery::CancellationToken;
use muster_node::{ImageRule, Isolation, NodeDescription};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

use crate::commands::mpi_agent;
use crate::error::Error;
use crate::home::Home;
use crate::runtimes;
use crate::topology::TopologyArguments;

/// Longest wait for the node to be ready, and to end.
const START_DEADLINE: Duration = Duration::from_secs(30);
const STOP_DEADLINE: Duration = Duration::from_mins(1);

/// Which nodes to play and how.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AgentArguments {
    #[command(flatten)]
    topology: TopologyArguments,
    /// Which folder stands for which images: PATTERN=host or PATTERN=/path/to/root
    #[arg(long = "image", value_name = "RULE", value_parser = image_rule)]
    images: Vec<ImageRule>,
    /// How far pods are kept apart
    #[arg(long, value_enum, default_value_t)]
    isolation: IsolationChoice,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum IsolationChoice {
    /// Full where the machine allows it, else light
    #[default]
    Auto,
    /// Namespaces for processes, files, names and network
    Full,
    /// Plain processes
    Light,
}

impl From<IsolationChoice> for Isolation {
    fn from(choice: IsolationChoice) -> Self {
        match choice {
            IsolationChoice::Auto => Self::Auto,
            IsolationChoice::Full => Self::Full,
            IsolationChoice::Light => Self::Light,
        }
    }
}

/// Reads `PATTERN=ROOT`.
fn image_rule(text: &str) -> Result<ImageRule, String> {
    text.parse().map_err(|error: muster_node::ImageRuleError| error.to_string())
}

impl AgentArguments {
    /// What they ask for; a topology file is read.
    pub(crate) fn options(self) -> Result<AgentOptions, Error> {
        let nodes = self.topology.nodes()?;
        Ok(AgentOptions { nodes, images: self.images, isolation: self.isolation.into() })
    }
}

/// How to run the node.
#[derive(Debug, Clone)]
pub(crate) struct AgentOptions {
    /// The nodes to play.
    pub(crate) nodes: Vec<NodeDescription>,
    /// Image rules before the default ones.
    pub(crate) images: Vec<ImageRule>,
    /// How far pods are kept apart.
    pub(crate) isolation: Isolation,
}

impl AgentOptions {
    /// In words.
    pub(crate) fn summary(&self) -> String {
        let gpus: u32 = self.nodes.iter().map(|node| node.gpus).sum();
        format!("{} nodes with {gpus} GPU slots", self.nodes.len())
    }
}

/// A node that runs.
pub(crate) struct Agent {
    /// `full` or `light`, and why not full.
    pub(crate) isolation: String,
    folder: PathBuf,
    task: JoinHandle<Result<(), Error>>,
    stop: CancellationToken,
}

impl Agent {
    /// Starts it and returns when it takes pods.
    pub(crate) async fn start(
        home: &Home,
        options: AgentOptions,
        client: kube::Client,
        api_address: Option<SocketAddr>,
        offered_addresses: Vec<SocketAddr>,
    ) -> Result<Self, Error> {
        let program = std::env::current_exe()?;
        let spawner = vec![program.clone().into_os_string(), crate::SPAWNER_COMMAND.into()];
        let folder = home.node_folder();
        let mut node = muster_node::Options::new(client, folder.clone(), spawner);
        node.nodes = options.nodes;
        node.socket = home.node_socket();
        node.api_address = api_address;
        node.offered_addresses = offered_addresses;
        node.isolation = options.isolation;
        let rules = options.images.into_iter().chain(ImageRule::defaults());
        node.images = rules.chain(runtimes::image_rules()?).collect();
        node.tools = ["muster", "muster-train", "nslookup", mpi_agent::PROGRAM]
            .map(|name| (name.to_owned(), program.clone()))
            .to_vec();
        let service =
            node.build().await.map_err(|error| Error::from_source("the node does not start", &error))?;
        let handle = service.handle();
        let isolation = match handle.light_because() {
            Some(reason) => format!("{} ({reason})", handle.isolation()),
            None => handle.isolation().to_owned(),
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            service.run(stopped).await.map_err(|error| Error::from_source("the node failed", &error))
        });
        let agent = Self { isolation, folder, task, stop };
        timeout(START_DEADLINE, handle.ready()).await.map_err(|_| {
            Error::new("the node was not ready in time").with_hint("does the API server answer?")
        })?;
        Ok(agent)
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(&mut self) -> Result<Result<(), Error>, JoinError> {
        (&mut self.task).await
    }

    /// Stops it; pods go on for the next one, unless they are ended too.
    pub(crate) async fn stop(mut self, end_pods: bool) -> Result<(), Error> {
        self.stop.cancel();
        let ended = timeout(STOP_DEADLINE, &mut self.task)
            .await
            .map_err(|_| Error::new(format!("the node did not end in {} s", STOP_DEADLINE.as_secs())))?;
        if end_pods {
            tear_down(&self.folder).await?;
        }
        ended.map_err(|error| Error::from_source("the node broke", &error))?
    }
}

/// Ends the pods of a node that does not run and removes what it made.
pub(crate) async fn tear_down(folder: &std::path::Path) -> Result<(), Error> {
    muster_node::tear_down(folder)
        .await
        .map_err(|error| Error::from_source("cannot clean up the pods", &error))
}
