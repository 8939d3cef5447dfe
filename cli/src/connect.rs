//! Which cluster a command talks to: `--kubeconfig`, then `$KUBECONFIG`, then the embedded one.

use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::error::{Error, unusable};
use crate::home::Home;

/// How a person names the cluster and namespace.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ClusterArguments {
    /// Kubeconfig of the cluster [default: $KUBECONFIG, else the embedded cluster]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Namespace [default: the context's, else `default`]
    #[arg(long, short, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// State of the embedded cluster [default: ~/.local/share/muster]
    #[arg(long, env = "MUSTER_HOME", value_name = "FOLDER")]
    pub(crate) home: Option<PathBuf>,
}

/// A client and the namespace it speaks of when nothing else is said.
#[derive(Clone)]
pub(crate) struct Connection {
    /// The client.
    pub(crate) client: Client,
    /// The default namespace.
    pub(crate) namespace: String,
}

impl ClusterArguments {
    /// The kubeconfig that was named, by option or environment.
    pub(crate) fn named_kubeconfig(&self) -> Option<PathBuf> {
        let from_environment =
            || std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
        self.kubeconfig.clone().or_else(from_environment)
    }

    /// Connects to the cluster these arguments mean.
    pub(crate) async fn connect(&self) -> Result<Connection, Error> {
        if let Some(path) = self.named_kubeconfig() {
            return self.connect_with(&path).await;
        }
        let home = self.home()?;
        let path = home.kubeconfig();
        if !path.exists() {
            return Err(Error::new("no cluster: neither --kubeconfig nor $KUBECONFIG is set, and no embedded cluster has been started")
                .with_hint("`muster up` starts the embedded cluster"));
        }
        self.connect_with(&path).await
    }

    /// The embedded cluster's folder.
    pub(crate) fn home(&self) -> Result<Home, Error> {
        Home::find(self.home.clone())
    }

    /// Connects with this kubeconfig.
    pub(crate) async fn connect_with(&self, path: &Path) -> Result<Connection, Error> {
        let config = config(path, self.context.clone()).await?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(Error::from)?;
        Ok(Connection { client, namespace })
    }
}

/// Reads a kubeconfig.
pub(crate) async fn config(path: &Path, context: Option<String>) -> Result<Config, Error> {
    if !path.exists() {
        return Err(Error::new(format!("the kubeconfig {} does not exist", path.display()))
            .with_hint("--kubeconfig and $KUBECONFIG name it; without both the embedded cluster is used"));
    }
    let kubeconfig = Kubeconfig::read_from(path).map_err(|error| unusable(path, &error))?;
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| unusable(path, &error))
}
