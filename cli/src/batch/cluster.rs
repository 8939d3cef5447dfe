//! Which cluster, without the short options that mean something else to Slurm's users.

use std::path::PathBuf;

use clap::Args;

use crate::connect::{ClusterArguments, Connection};
use crate::error::Error;

/// How a person names the cluster and namespace.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct BatchCluster {
    /// Kubeconfig of the cluster [default: $KUBECONFIG, else the embedded cluster]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Namespace [default: the context's, else `default`]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// State of the embedded cluster [default: ~/.local/share/muster]
    #[arg(long, env = "MUSTER_HOME", value_name = "FOLDER")]
    home: Option<PathBuf>,
}

impl BatchCluster {
    /// Connects to the cluster these arguments mean.
    pub(crate) async fn connect(self) -> Result<Connection, Error> {
        let Self { kubeconfig, context, namespace, home } = self;
        ClusterArguments { kubeconfig, context, namespace, home }.connect().await
    }
}
