//! `muster down`: stops the embedded cluster and everything it runs.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use fs_err as fs;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::cluster;
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
    let was_running = cluster::is_running(&home);
    if was_running {
        let running = cluster::running(&home).ok_or_else(|| {
            Error::new("the cluster is still starting or stopping").with_hint("try again in a moment")
        })?;
        let pid = i32::try_from(running.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::new(format!("{} is not a process id", running.pid)))?;
        kill_process(pid, Signal::TERM)
            .map_err(|error| Error::from_source("cannot stop the cluster", &error))?;
        let deadline = Instant::now() + DEADLINE;
        while cluster::is_running(&home) {
            if Instant::now() >= deadline {
                return Err(Error::new(format!("the cluster (process {}) does not end", running.pid))
                    .with_hint(format!("its log is {}", home.log_file().display())));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    // Pods outlive a killed cluster; nothing may stay behind.
    muster_node::tear_down(&home.path().join("node"))
        .await
        .map_err(|error| Error::from_source("cannot clean up the pods", &error))?;
    cluster::remove_if_there(&home.running_file())?;
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
