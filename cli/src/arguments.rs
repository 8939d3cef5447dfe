//! The command line as people type it, and which command runs with what.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::commands;
use crate::commands::control::Control;
use crate::error::Error;
use crate::output;

/// Kubeflow's APIs in one binary: training jobs on a laptop or a cluster, scheduled as gangs.
#[derive(Debug, Parser)]
#[command(
    name = "muster",
    version,
    propagate_version = true,
    after_help = "Examples:\n  muster run examples/digits/pytorchjob.yaml   # one job, start to end\n  muster up --nodes 2 --gpus-per-node 4        # a cluster to work with\n  muster get pytorchjobs"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Up(commands::up::Arguments),
    Down(commands::down::Arguments),
    Run(commands::run::Arguments),
    Submit(commands::submit::Arguments),
    Batch(Box<commands::batch::Arguments>),
    Shell(Box<commands::shell::Arguments>),
    Queue(commands::queue::Arguments),
    /// Ends batch jobs, or keeps them from starting
    #[command(after_help = "Example:\n  muster cancel 17 18")]
    Cancel(commands::control::Arguments),
    /// Keeps batch jobs from starting until they are released
    #[command(after_help = "Example:\n  muster hold 17")]
    Hold(commands::control::Arguments),
    /// Lets held batch jobs start
    #[command(after_help = "Example:\n  muster release 17")]
    Release(commands::control::Arguments),
    /// Starts batch jobs from their beginning again
    #[command(after_help = "Example:\n  muster requeue 17")]
    Requeue(commands::control::Arguments),
    Get(commands::get::Arguments),
    Describe(commands::describe::Arguments),
    Logs(commands::logs::Arguments),
    Explain(commands::explain::Arguments),
    Whatif(commands::whatif::Arguments),
    Scale(commands::scale::Arguments),
    Delete(commands::delete::Arguments),
    Events(commands::events::Arguments),
    Top(commands::top::Arguments),
    Topology(commands::topology::Arguments),
    Simulate(commands::simulate::Arguments),
    Version(commands::version::Arguments),
    Crds(commands::crds::Arguments),
    Install(commands::install::Arguments),
    Uninstall(commands::uninstall::Arguments),
    Controller(Box<commands::controller::Arguments>),
    Node(commands::node::Arguments),
    MpiAgent(commands::mpi_agent::Arguments),
    Bench(commands::bench::Arguments),
    /// Trains a model: the program inside the pods of the examples, also called `muster-train`
    Train(Box<muster_trainer_runtime::Arguments>),
    ExecWorker(Box<muster_launcher::Arguments>),
    /// Prints the completions of a shell
    #[command(after_help = "Example:\n  muster completions bash > /etc/bash_completion.d/muster")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    pub(crate) async fn run(self) -> Result<ExitCode, Error> {
        match self {
            Self::Up(arguments) => commands::up::run(arguments).await?,
            Self::Down(arguments) => commands::down::run(arguments).await?,
            Self::Run(arguments) => return commands::run::run(arguments).await,
            Self::Submit(arguments) => commands::submit::run(arguments).await?,
            Self::Batch(arguments) => return commands::batch::run(*arguments).await,
            Self::Shell(arguments) => return Box::pin(commands::shell::run(*arguments)).await,
            Self::Queue(arguments) => commands::queue::run(arguments).await?,
            Self::Cancel(arguments) => arguments.run(Control::Cancel).await?,
            Self::Hold(arguments) => arguments.run(Control::Hold).await?,
            Self::Release(arguments) => arguments.run(Control::Release).await?,
            Self::Requeue(arguments) => arguments.run(Control::Requeue).await?,
            Self::Get(arguments) => commands::get::run(arguments).await?,
            Self::Describe(arguments) => commands::describe::run(arguments).await?,
            Self::Logs(arguments) => commands::logs::run(arguments).await?,
            Self::Explain(arguments) => commands::explain::run(arguments).await?,
            Self::Whatif(arguments) => Box::pin(commands::whatif::run(arguments)).await?,
            Self::Scale(arguments) => commands::scale::run(arguments).await?,
            Self::Delete(arguments) => commands::delete::run(arguments).await?,
            Self::Events(arguments) => commands::events::run(arguments).await?,
            Self::Top(arguments) => commands::top::run(arguments).await?,
            Self::Topology(arguments) => commands::topology::run(arguments).await?,
            Self::Simulate(arguments) => commands::simulate::run(arguments).await?,
            Self::Version(arguments) => commands::version::run(arguments).await?,
            Self::Crds(arguments) => commands::crds::run(arguments)?,
            Self::Install(arguments) => commands::install::run(arguments).await?,
            Self::Uninstall(arguments) => commands::uninstall::run(arguments).await?,
            Self::Controller(arguments) => commands::controller::run(*arguments).await?,
            Self::Node(arguments) => commands::node::run(arguments).await?,
            Self::MpiAgent(arguments) => return commands::mpi_agent::run(arguments).await,
            Self::Bench(arguments) => return commands::bench::run(arguments).await,
            Self::Train(_) | Self::ExecWorker(_) => {
                return Err(Error::new("this command runs without the asynchronous runtime"));
            }
            Self::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Arguments::command(), "muster", &mut script);
                output::print(&String::from_utf8_lossy(&script))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
