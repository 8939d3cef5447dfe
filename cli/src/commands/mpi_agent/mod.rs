//! `muster mpi-agent`, also called as `muster-mpi-agent`: with it `mpirun` starts processes in workers that run no
//! SSH server, through the API server's `exec`.

mod remote;
mod wait;
mod words;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use fs_err as fs;

use crate::error::Error;

/// What the program is called where `mpirun` calls it: MPICH takes a program, not a command line.
pub(crate) const PROGRAM: &str = "muster-mpi-agent";

/// Starts an MPI job's processes in its workers: what the launcher of an `MPIJob` runs in place of ssh
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mpirun --mca plm_rsh_agent muster-mpi-agent -H pi-worker-0,pi-worker-1 hostname\n  muster mpi-agent run pi-worker-0 hostname\n  muster mpi-agent wait --hostfile /etc/mpi/hostfile --port 22"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// Runs a command in a worker, as ssh would: the host's first label is the pod's name
    Run {
        /// Options of ssh, which are not heeded; the host; the command
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            required = true,
            value_name = "HOST COMMAND"
        )]
        words: Vec<String>,
    },
    /// Waits until the hosts of a hostfile can be found, and answer if a port is given
    Wait {
        /// The hostfile
        #[arg(long, value_name = "FILE")]
        hostfile: PathBuf,
        /// A port on which each of them must answer
        #[arg(long, value_name = "PORT")]
        port: Option<u16>,
        /// A host that is not waited for, by its first label
        #[arg(long, value_name = "HOST")]
        except: Vec<String>,
        /// How long to wait, in seconds; a job's own deadline mostly comes before
        #[arg(long, value_name = "SECONDS", default_value_t = 24 * 60 * 60)]
        timeout: u64,
    },
    /// Copies this program to a file
    Install {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// The words of `muster` that a call under the program's other name stands for.
pub(crate) fn called(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let words: Vec<OsString> = words.collect();
    // A host could be called `wait`, but no command begins with an option.
    let waits = words.first().is_some_and(|word| word == "wait")
        && words.get(1).is_some_and(|word| word.to_string_lossy().starts_with("--"));
    let deed = (!waits).then(|| OsString::from("run"));
    ["muster", "mpi-agent"].map(OsString::from).into_iter().chain(deed).chain(words).collect()
}

/// Runs the command; its exit code is that of what it ran.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Error> {
    match arguments.deed {
        Deed::Run { words } => remote::run(words::parse(&words)?).await,
        Deed::Wait { hostfile, port, except, timeout } => {
            let hosts = wait::hosts(&fs::read_to_string(hostfile)?, &except);
            wait::wait(&hosts, port, Duration::from_secs(timeout)).await?;
            Ok(ExitCode::SUCCESS)
        }
        Deed::Install { file } => {
            fs::copy(std::env::current_exe()?, file)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_name_runs_unless_it_is_to_wait() {
        let words = |text: &str| {
            let words = called(text.split(' ').map(OsString::from));
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(words("-x host true"), "muster mpi-agent run -x host true");
        assert_eq!(words("wait --hostfile f"), "muster mpi-agent wait --hostfile f");
        assert_eq!(words("wait true"), "muster mpi-agent run wait true");
    }
}
