//! `muster up`: the embedded cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use clap::{Args, ValueEnum};
use fs_err as fs;
use muster_machinery::telemetry::{self, Format, Target};
use muster_node::{ImageRule, Isolation};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use crate::cluster::{Cluster, Options};
use crate::error::{Error, USAGE};
use crate::home::Home;
use crate::output;
use crate::topology::TopologyArguments;

/// Longest wait for a detached cluster.
const DETACH_DEADLINE: Duration = Duration::from_mins(1);
/// The line by which a detached cluster says that it is ready.
const READY: &str = "ready";

/// Starts the embedded cluster and stays until Ctrl-C
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster up\n  muster up --detach --nodes 2 --gpus-per-node 4\n  muster up --topology racks.yaml --image 'pytorch/*=host'"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    topology: TopologyArguments,
    /// Run in the background; `muster down` stops it
    #[arg(long, short)]
    detach: bool,
    /// Address of the API; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Let every write survive a power loss, not only a crash
    #[arg(long)]
    durable: bool,
    /// Which folder stands for which images: PATTERN=host or PATTERN=/path/to/root
    #[arg(long = "image", value_name = "RULE", value_parser = image_rule)]
    images: Vec<ImageRule>,
    /// How far pods are kept apart
    #[arg(long, value_enum, default_value_t)]
    isolation: IsolationChoice,
    /// State of the cluster [default: ~/.local/share/muster]
    #[arg(long, env = "MUSTER_HOME", value_name = "FOLDER")]
    home: Option<PathBuf>,
    /// Say ready on standard output, for the process that detaches
    #[arg(long, hide = true)]
    announce: bool,
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
pub(crate) fn image_rule(text: &str) -> Result<ImageRule, String> {
    text.parse().map_err(|error: muster_node::ImageRuleError| error.to_string())
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let home = Home::find(arguments.home.clone())?;
    if arguments.detach {
        return detach(&home).await;
    }
    telemetry::init(Format::Text, Target::StandardError, "warn,muster=info")?;
    let options = Options {
        nodes: arguments.topology.nodes()?,
        listen: arguments.listen,
        durable: arguments.durable,
        images: arguments.images,
        isolation: arguments.isolation.into(),
        home: home.clone(),
    };
    let summary = summary(&options);
    let mut cluster = Cluster::start(options).await?;
    if arguments.announce {
        output::print(&format!("{READY}\n"))?;
    } else {
        output::note(&format!(
            "ready in {:.2} s: {summary}, isolation {}\nexport KUBECONFIG={}",
            cluster.started_in.as_secs_f64(),
            cluster.isolation,
            home.kubeconfig().display()
        ));
    }
    let failure = tokio::select! {
        signal = muster_machinery::shutdown::stop_signal() => signal.err().map(Error::from),
        error = cluster.failed() => Some(error),
    };
    cluster.stop().await?;
    failure.map_or(Ok(()), Err)
}

fn summary(options: &Options) -> String {
    let gpus: u32 = options.nodes.iter().map(|node| node.gpus).sum();
    format!("{} nodes with {gpus} GPU slots", options.nodes.len())
}

/// Starts the same command in the background and waits until it is ready.
async fn detach(home: &Home) -> Result<(), Error> {
    fs::create_dir_all(home.path())?;
    let log = fs::OpenOptions::new().create(true).append(true).open(home.log_file())?;
    let kept = std::env::args_os().skip(1).filter(|word| word != "--detach" && word != "-d");
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command.args(kept).arg("--announce").env("MUSTER_HOME", home.path());
    // Ctrl-C in this terminal is not meant for it.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::from(log.into_file()));
    let mut child =
        command.spawn().map_err(|error| Error::from_source("cannot start the cluster", &error))?;
    let stdout = child.stdout.take().ok_or_else(|| Error::new("the cluster has no output"))?;
    let mut lines = BufReader::new(stdout).lines();
    let line = timeout(DETACH_DEADLINE, lines.next_line()).await;
    if let Ok(Ok(Some(line))) = &line
        && line == READY
    {
        output::note(&format!("ready\nexport KUBECONFIG={}", home.kubeconfig().display()));
        return Ok(());
    }
    let _ended = child.kill().await;
    let log = fs::read_to_string(home.log_file()).unwrap_or_default();
    let last: Vec<&str> = log.lines().rev().take(5).collect();
    let cause = last.into_iter().rev().collect::<Vec<_>>().join("\n");
    Err(Error::new(format!("the cluster did not start; its log ends with:\n{cause}")).with_code(USAGE - 1))
}
