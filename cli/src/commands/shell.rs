//! `muster shell`: an interactive job, as `salloc` and `srun --pty` give one.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use muster_batch_core::Kind;

use crate::batch::{self, Allocation, BatchCluster, Nodes};
use crate::error::Error;
use crate::shell::{Ended, Notes, Session, Signals, Start, give_up, why};

/// The codes of shells that were ended from outside: by a hang-up, a kill, or a request.
const FROM_OUTSIDE: [u8; 3] = [129, 137, 143];

/// Opens a shell in a job of its own, once the job has its place
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster shell --gpus 1\n  muster shell --gpus 1 --time 1:00:00 -- python3 train.py --debug\n  muster shell --nodes 2 --ntasks-per-node 4   # then `mpirun hostname` in the shell\n  muster shell --immediate --partition debug   # now or not at all\n  echo hostname | muster shell --quiet\n\nThe job waits in the queue like any other, and ends with the shell, with this command, and when its time is over; its exit code becomes the command's. On a terminal the shell has one, too; otherwise it reads commands. It becomes a Job, over several nodes an MPIJob, which `muster queue` shows; the shell finds Slurm's variables, and the same as MUSTER_*."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    allocation: Allocation,
    /// Give up if there is no place at once, or within so many seconds
    #[arg(
        long,
        short = 'I',
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "0"
    )]
    immediate: Option<u32>,
    /// Print only what the shell prints, and errors
    #[arg(long, short = 'Q')]
    quiet: bool,
    #[command(flatten)]
    cluster: BatchCluster,
    /// What runs in place of a shell
    #[arg(value_name = "COMMAND", trailing_var_arg = true, help_heading = "Arguments")]
    command: Vec<String>,
}

/// Runs the command; its exit code is the shell's.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Error> {
    let Arguments { allocation, immediate, quiet, cluster, command } = arguments;
    let connection = cluster.connect().await?;
    let nodes = Nodes::read(&connection).await;
    let request = batch::interactive(allocation, &command, &nodes)?;
    let kind = if request.layout.nodes() > 1 { Kind::MpiJob } else { Kind::Job };
    let notes = Notes::new(quiet);
    // From here on no signal leaves a job behind.
    let mut signals = Signals::take_over()?;
    let id = batch::submit(&connection, &request).await?;
    let immediate = immediate.map(|seconds| Duration::from_secs(seconds.into()));
    let start = Start { connection: &connection, id, kind, immediate, notes: &notes };
    let worked = tokio::select! {
        biased;
        code = signals.next() => Ok(Worked::Interrupted(code)),
        worked = work(&start, &command) => worked.map(Worked::Ended),
    };
    if !matches!(worked, Ok(Worked::Ended(_))) {
        tokio::select! {
            () = give_up(&connection, id, &notes) => {}
            () = Signals::lost_patience() => {}
        }
    }
    worked.map(|(Worked::Ended(code) | Worked::Interrupted(code))| ExitCode::from(code))
}

/// How the command's work came to its end.
enum Worked {
    /// The shell ended, with this code.
    Ended(u8),
    /// A signal came before, to which this code belongs.
    Interrupted(u8),
}

/// Waits for the job to start and runs its shell; the shell's exit code.
async fn work(start: &Start<'_>, command: &[String]) -> Result<u8, Error> {
    let Start { connection, id, notes, .. } = *start;
    let pod = start.wait().await?;
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let session = Session { pods: &pods, pod: &pod, id, command, notes };
    let Ended { code, out_of_time } = session.run().await?;
    let ended_by_itself = code.as_ref().is_ok_and(|code| !FROM_OUTSIDE.contains(code));
    if ended_by_itself && !out_of_time {
        return code;
    }
    match (why(connection, id, out_of_time).await, code) {
        (Some(why), Ok(code)) => {
            notes.tell(&why);
            Ok(code)
        }
        (Some(why), Err(_)) => Err(Error::new(why)),
        (None, code) => code,
    }
}
