//! `muster down`: stops the embedded cluster and everything it runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use fs_err as fs;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::agent;
use crate::cluster::{self, Running};
use crate::error::Error;
use crate::home::Home;
use crate::output;

const DEADLINE: Duration = Duration::from_secs(90);

/// Stops the embedded cluster and everything it runs
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster down\n  muster down --purge   # and forget all objects and volumes"
)]
pub(crate) struct Arguments {
    /// Delete its state too: objects, logs, volumes
    #[arg(long)]
    purge: bool,
    /// State of the cluster [default: ~/.local/share/muster]
    #[arg(long, env = "MUSTER_HOME", value_name = "FOLDER")]
    home: Option<PathBuf>,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let home = Home::find(arguments.home)?;
    let node_lock = home.node_folder().join("agent.lock");
    // A node of its own ends its pods while it can still tell the API so.
    let is_own = cluster::running(&home.node_running_file()).is_some();
    let node_was_running = is_own
        && stop("the node", &home.node_running_file(), || cluster::is_locked(&node_lock), &home).await?;
    let cluster_was_running =
        stop("the cluster", &home.running_file(), || cluster::is_running(&home), &home).await?;
    let was_running = node_was_running || cluster_was_running;
    // Pods outlive a killed cluster; nothing may stay behind.
    agent::tear_down(&home.node_folder()).await?;
    for file in [home.running_file(), home.node_running_file(), home.node_socket()] {
        cluster::remove_if_there(&file)?;
    }
    if arguments.purge && home.path().exists() {
        fs::remove_dir_all(home.path())?;
    }
    output::note(match (was_running, arguments.purge) {
        (true, false) => "stopped",
        (true, true) => "stopped and forgotten",
        (false, true) => "no cluster was running; its state is forgotten",
        (false, false) => "no cluster was running",
    });
    Ok(())
}

/// Ends the process of the file with SIGTERM, if one runs.
async fn stop(what: &str, file: &Path, runs: impl Fn() -> bool, home: &Home) -> Result<bool, Error> {
    if !runs() {
        return Ok(false);
    }
    let Running { pid, .. } = cluster::running(file).ok_or_else(|| {
        Error::new(format!("{what} is still starting or stopping")).with_hint("try again in a moment")
    })?;
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = process.ok_or_else(|| Error::new(format!("{pid} is not a process id")))?;
    kill_process(process, Signal::TERM)
        .map_err(|error| Error::from_source(&format!("cannot stop {what}"), &error))?;
    let deadline = Instant::now() + DEADLINE;
    while runs() {
        if Instant::now() >= deadline {
            return Err(Error::new(format!("{what} (process {pid}) does not end"))
                .with_hint(format!("the log of a detached cluster is {}", home.log_file().display())));
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(true)
}
