//! `muster node`: the nodes of this machine as a process of their own.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use kube::Client;
use muster_machinery::shutdown::StopSignals;
use muster_machinery::telemetry::{self, Format, Target};

use crate::agent::{Agent, AgentArguments};
use crate::cluster;
use crate::connect;
use crate::error::Error;
use crate::home::Home;
use crate::output;

/// Runs this machine's nodes against an API server, until Ctrl-C
#[derive(Debug, Args)]
#[command(
    long_about = "Runs this machine's nodes against an API server, until Ctrl-C.\n\nThe API server of the same state folder finds it there, for logs and statistics. A node that is killed leaves its pods running, and the next one takes them over.",
    after_help = "Examples:\n  muster up --only apiserver,trainer,scheduler,built-in --detach\n  muster node --nodes 2 --gpus-per-node 4\n  muster node --keep-pods    # for an upgrade: stop it, start the new one, pods run on"
)]
pub(crate) struct Arguments {
    /// Kubeconfig of the API server [default: the embedded cluster's]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    #[command(flatten)]
    agent: AgentArguments,
    /// Leave the pods running at the end, for the next node to take over
    #[arg(long)]
    keep_pods: bool,
    /// Log lines as JSON
    #[arg(long)]
    json_log: bool,
    /// State of the cluster [default: ~/.local/share/muster]
    #[arg(long, env = "MUSTER_HOME", value_name = "FOLDER")]
    home: Option<PathBuf>,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let format = if arguments.json_log { Format::Json } else { Format::Text };
    telemetry::init(format, Target::StandardError, "warn,muster=info")?;
    let home = Home::find(arguments.home)?;
    let kubeconfig = arguments.kubeconfig.unwrap_or_else(|| home.kubeconfig());
    let config = connect::config(&kubeconfig, arguments.context).await?;
    let address = config.cluster_url.authority().and_then(|place| place.as_str().parse::<SocketAddr>().ok());
    let client = Client::try_from(config)?;
    client.apiserver_version().await?;
    let options = arguments.agent.options()?;
    let summary = options.summary();
    let signals = StopSignals::take_over()?;
    let mut agent = Agent::start(&home, options, client, address, Vec::new()).await?;
    cluster::write_running(&home.node_running_file(), None)?;
    output::note(&format!("ready: {summary}, isolation {}", agent.isolation));
    tokio::select! {
        _ = signals.first() => {}
        ended = agent.ended() => {
            let error = match ended {
                Ok(Ok(())) => Error::new("the node ended by itself"),
                Ok(Err(error)) => error,
                Err(error) => Error::from_source("the node broke", &error),
            };
            return Err(error);
        }
    }
    cluster::remove_if_there(&home.node_running_file())?;
    agent.stop(!arguments.keep_pods).await
}
