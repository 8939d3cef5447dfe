//! `muster controller`: Muster's roles against any Kubernetes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use muster_machinery::leader::Election;
use muster_machinery::telemetry::{self, Format, Target};
use muster_machinery::{CancellationToken, shutdown};
use tokio::task::JoinSet;

use crate::error::{Error, unusable};
use crate::output;

/// Runs Muster's controllers against a Kubernetes cluster
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster controller --kubeconfig ~/.kube/config\n  muster controller --only trainer --gang-scheduler-name volcano"
)]
pub(crate) struct Arguments {
    /// Kubeconfig [default: $KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Which roles to run
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["trainer", "scheduler"])]
    only: Vec<Role>,
    /// Only jobs of this namespace [default: all]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Who schedules gangs: muster, volcano, a scheduler-plugins scheduler's name, or nothing
    #[arg(long, default_value = "muster", value_name = "NAME")]
    gang_scheduler_name: String,
    /// Elect one of several replicas through a Lease in this namespace
    #[arg(long, value_name = "NAMESPACE")]
    leader_elect: Option<String>,
    /// Log lines as JSON
    #[arg(long)]
    json_log: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Training jobs
    Trainer,
    /// Binding of gangs
    Scheduler,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let format = if arguments.json_log { Format::Json } else { Format::Text };
    telemetry::init(format, Target::StandardError, "info")?;
    let client = connect(&arguments).await?;
    let version = client.apiserver_version().await?;
    output::note(&format!("connected to Kubernetes {}", version.git_version));
    let stop = shutdown::token_on_signal();
    let leading = match &arguments.leader_elect {
        None => stop.clone(),
        Some(namespace) => {
            let host = fs_err::read_to_string("/etc/hostname").unwrap_or_default();
            let identity = format!("{}-{:x}", host.trim(), rand::random::<u64>());
            match Election::new(namespace, "muster-controller", identity).lead(client.clone(), &stop).await {
                Some(leading) => leading,
                None => return Ok(()),
            }
        }
    };
    serve(&arguments, &client, &leading).await?;
    if leading.is_cancelled() && !stop.is_cancelled() {
        return Err(Error::new("another replica leads now").with_code(EXIT_LEADERSHIP_LOST));
    }
    Ok(())
}

/// Exit code after the leadership was lost: the pod restarts and stands for election again.
const EXIT_LEADERSHIP_LOST: u8 = 3;

async fn serve(arguments: &Arguments, client: &Client, stop: &CancellationToken) -> Result<(), Error> {
    let mut roles: JoinSet<Result<(), Error>> = JoinSet::new();
    if arguments.only.contains(&Role::Trainer) {
        let options = muster_trainer_controller::Options {
            namespace: arguments.namespace.clone(),
            gang_scheduler_name: arguments.gang_scheduler_name.clone(),
            ..muster_trainer_controller::Options::default()
        };
        let (trainer, token) = (options.build(client.clone()), stop.clone());
        roles.spawn(async move {
            trainer.run(token).await;
            Ok(())
        });
    }
    if arguments.only.contains(&Role::Scheduler) {
        let scheduler =
            muster_scheduler_controller::Options::beside_another_scheduler(client.clone()).build();
        let token = stop.clone();
        roles.spawn(async move {
            scheduler.run(token).await;
            Ok(())
        });
    }
    while let Some(result) = roles.join_next().await {
        result.map_err(|error| Error::from_source("a role broke", &error))??;
    }
    Ok(())
}

async fn connect(arguments: &Arguments) -> Result<Client, Error> {
    let config = match &arguments.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(|error| unusable(path, &error))?;
            let options =
                KubeConfigOptions { context: arguments.context.clone(), ..KubeConfigOptions::default() };
            Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(|error| unusable(path, &error))?
        }
        None => Config::infer().await.map_err(|error| {
            Error::from_source("no cluster", &error).with_hint("name one with --kubeconfig")
        })?,
    };
    Ok(Client::try_from(config)?)
}
