//! The command line as people type it, and which command runs with what.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::commands;
use crate::connect::ClusterArguments;
use crate::error::Error;
use crate::home::Home;

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
    Run(#[command(flatten)] WithCluster<commands::run::Arguments>),
    Submit(#[command(flatten)] WithCluster<commands::submit::Arguments>),
    Get(#[command(flatten)] WithCluster<commands::get::Arguments>),
    Describe(#[command(flatten)] WithCluster<commands::describe::Arguments>),
    Logs(#[command(flatten)] WithCluster<commands::logs::Arguments>),
    Explain(#[command(flatten)] WithCluster<commands::explain::Arguments>),
    Delete(#[command(flatten)] WithCluster<commands::delete::Arguments>),
    Events(#[command(flatten)] WithCluster<commands::events::Arguments>),
    Top(#[command(flatten)] WithCluster<commands::top::Arguments>),
    Version(#[command(flatten)] WithCluster<commands::version::Arguments>),
    Crds(commands::crds::Arguments),
    Controller(commands::controller::Arguments),
    /// Trains a model: the program inside the pods of the examples, also called `muster-train`
    Train(muster_trainer_runtime::Arguments),
    /// Prints the completions of a shell
    #[command(after_help = "Example:\n  muster completions bash > /etc/bash_completion.d/muster")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// A command's own arguments and those that choose the cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct WithCluster<T: clap::Args> {
    #[command(flatten)]
    own: T,
    #[command(flatten)]
    cluster: ClusterArguments,
    /// State of the embedded cluster [default: ~/.local/share/muster]
    #[arg(long, env = "MUSTER_HOME", value_name = "FOLDER")]
    home: Option<PathBuf>,
}

impl Command {
    pub(crate) async fn run(self) -> Result<ExitCode, Error> {
        match self {
            Self::Up(arguments) => commands::up::run(arguments).await?,
            Self::Down(arguments) => commands::down::run(arguments).await?,
            Self::Run(all) => return commands::run::run(all.own, all.cluster, Home::find(all.home)?).await,
            Self::Submit(all) => commands::submit::run(all.own, &all.cluster.connect(&Home::find(all.home)?).await?).await?,
            Self::Get(all) => commands::get::run(all.own, &all.cluster.connect(&Home::find(all.home)?).await?).await?,
            Self::Describe(all) => commands::describe::run(all.own, &all.cluster.connect(&Home::find(all.home)?).await?).await?,
            Self::Logs(all) => commands::logs::run(all.own, &all.cluster.connect(&Home::find(all.home)?).await?).await?,
            Self::Explain(all) => commands::explain::run(all.own, &all.cluster.connect(&Home::find(all.home)?).await?).await?,
            Self::Delete(all) => commands::delete::run(all.own, &all.cluster.connect(&Home::find(all.home)?).await?).await?,
            Self::Events(all) => commands::events::run(all.own, &all.cluster.connect(&Home::find(all.home)?).await?).await?,
            Self::Top(all) => commands::top::run(all.own, &all.cluster.connect(&Home::find(all.home)?).await?).await?,
            Self::Version(all) => {
                // A version is worth printing without a cluster too.
                let connection = match all.own.client {
                    true => None,
                    false => all.cluster.connect(&Home::find(all.home)?).await.ok(),
                };
                commands::version::run(all.own, connection.as_ref()).await?;
            }
            Self::Crds(arguments) => commands::crds::run(arguments)?,
            Self::Controller(arguments) => commands::controller::run(arguments).await?,
            Self::Train(_) => return Err(Error::new("training runs without the asynchronous runtime")),
            Self::Completions { shell } => {
                clap_complete::generate(shell, &mut Arguments::command(), "muster", &mut std::io::stdout());
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
