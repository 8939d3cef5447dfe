//! `muster up`: the embedded cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use clap::{Args, ValueEnum};
use fs_err as fs;
use muster_machinery::shutdown::StopSignals;
use muster_machinery::telemetry::{self, Format, Target};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use crate::agent::{AgentArguments, AgentOptions};
use crate::cluster::{self, Cluster, Options};
use crate::dashboard::Place;
use crate::error::{Error, USAGE};
use crate::home::Home;
use crate::output;
use crate::roles::Role;

/// Longest wait for a detached cluster.
const DETACH_DEADLINE: Duration = Duration::from_mins(1);
/// The line by which a detached cluster says that it is ready.
const READY: &str = "ready";

/// Starts the embedded cluster and stays until Ctrl-C
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster up\n  muster up --detach --nodes 2 --gpus-per-node 4\n  muster up --topology racks.yaml --image 'pytorch/*=host'\n\nEach part as a process of its own:\n  muster up --only apiserver\n  muster node --nodes 2 --gpus-per-node 4\n  muster controller --kubeconfig ~/.local/share/muster/kubeconfig \\\n    --only trainer,scheduler,built-in --scheduler-names muster,default-scheduler"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    agent: AgentArguments,
    /// Run only these parts; the others are processes of their own
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART", hide_default_value = true, default_values = ["apiserver", "node", "trainer", "scheduler", "built-in"])]
    only: Vec<Part>,
    /// Run in the background; `muster down` stops it
    #[arg(long, short)]
    detach: bool,
    /// Address of the API; port 0 takes that of the last run, or a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Address of the scheduler's REST API for dashboards [default: 127.0.0.1:9403, or a free port if that is taken]
    #[arg(long, value_name = "ADDRESS")]
    dashboard_listen: Option<SocketAddr>,
    /// Let every write survive a power loss, not only a crash
    #[arg(long)]
    durable: bool,
    /// Seconds between two looks of a HorizontalPodAutoscaler at its pods [default: 15]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    autoscaler_period: Option<u64>,
    /// State of the cluster [default: ~/.local/share/muster]
    #[arg(long, env = "MUSTER_HOME", value_name = "FOLDER")]
    home: Option<PathBuf>,
    /// Say ready on standard output, for the process that detaches
    #[arg(long, hide = true)]
    announce: bool,
}

/// What one process of a cluster may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The API, which every other part needs
    Apiserver,
    /// The nodes; else `muster node`
    Node,
    /// Training jobs; else `muster controller`
    Trainer,
    /// Binding of pods; else `muster controller`
    Scheduler,
    /// Garbage collection, Job, Deployment and the like; else `muster controller`
    BuiltIn,
}

impl Part {
    fn role(self) -> Option<Role> {
        match self {
            Self::Apiserver | Self::Node => None,
            Self::Trainer => Some(Role::Trainer),
            Self::Scheduler => Some(Role::Scheduler),
            Self::BuiltIn => Some(Role::BuiltIn),
        }
    }
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let home = Home::find(arguments.home.clone())?;
    if arguments.detach {
        return detach(&home).await;
    }
    telemetry::init(Format::Text, Target::StandardError, "warn,muster=info")?;
    if !arguments.only.contains(&Part::Apiserver) {
        return Err(Error::new("`muster up` runs the API server, so --only must name it")
            .with_hint("`muster node` and `muster controller` run the other parts by themselves")
            .with_code(USAGE));
    }
    let plays_nodes = arguments.only.contains(&Part::Node);
    let agent = plays_nodes.then(|| arguments.agent.options()).transpose()?;
    let summary = agent.as_ref().map_or_else(|| "no node".to_owned(), AgentOptions::summary);
    let options = Options {
        home: home.clone(),
        listen: arguments.listen,
        durable: arguments.durable,
        agent,
        roles: Role::ALL
            .into_iter()
            .filter(|role| arguments.only.iter().any(|part| part.role() == Some(*role)))
            .collect(),
        dashboard: Some(arguments.dashboard_listen.map_or(Place::Usual, Place::Named)),
        autoscaler_period: arguments.autoscaler_period.map(Duration::from_secs),
    };
    let signals = StopSignals::take_over()?;
    let mut cluster = Cluster::start(options).await?;
    if arguments.announce {
        output::print(&format!("{READY}\n"))?;
    } else {
        let isolation = cluster.isolation().map(|found| format!(", isolation {found}")).unwrap_or_default();
        output::note(&format!(
            "ready in {:.2} s: {summary}{isolation}\n{}",
            cluster.started_in.as_secs_f64(),
            addresses(&home, cluster.dashboard.as_deref())
        ));
    }
    let failure = tokio::select! {
        _ = signals.first() => None,
        error = cluster.failed() => Some(error),
    };
    cluster.stop().await?;
    failure.map_or(Ok(()), Err)
}

/// Where the cluster is found.
fn addresses(home: &Home, dashboard: Option<&str>) -> String {
    let dashboard = dashboard.map(|url| format!("dashboard API at {url}/v1/gangs\n")).unwrap_or_default();
    format!("{dashboard}export KUBECONFIG={}", home.kubeconfig().display())
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
        let running = cluster::running(&home.running_file());
        let dashboard = running.and_then(|running| running.dashboard);
        output::note(&format!("ready\n{}", addresses(home, dashboard.as_deref())));
        return Ok(());
    }
    let _ended = child.kill().await;
    let log = fs::read_to_string(home.log_file()).unwrap_or_default();
    let last: Vec<&str> = log.lines().rev().take(5).collect();
    let cause = last.into_iter().rev().collect::<Vec<_>>().join("\n");
    Err(Error::new(format!("the cluster did not start; its log ends with:\n{cause}")).with_code(USAGE - 1))
}
