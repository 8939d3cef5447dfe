//! Where the embedded cluster keeps its state: `$MUSTER_HOME`, else `~/.local/share/muster`.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// The folder of one embedded cluster.
#[derive(Debug, Clone)]
pub(crate) struct Home(PathBuf);

impl Home {
    /// The folder that `--home` or the environment names.
    pub(crate) fn find(named: Option<PathBuf>) -> Result<Self, Error> {
        let data_home =
            || std::env::var_os("XDG_DATA_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
        let user_home = || std::env::home_dir().map(|home| home.join(".local/share"));
        let folder = named.or_else(|| data_home().or_else(user_home).map(|base| base.join("muster")));
        let folder = folder.ok_or_else(|| {
            Error::new("no home folder for the cluster's state").with_hint("set MUSTER_HOME to a folder")
        })?;
        std::path::absolute(&folder)
            .map(Self)
            .map_err(|error| Error::from_source("cannot use the home folder", &error))
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The kubeconfig of the embedded cluster.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    /// Who runs the cluster: process id and options, written when it is ready.
    pub(crate) fn running_file(&self) -> PathBuf {
        self.0.join("running.json")
    }

    /// The log of a detached cluster.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.0.join("muster.log")
    }

    /// Who runs the node when it is a process of its own.
    pub(crate) fn node_running_file(&self) -> PathBuf {
        self.0.join("node.json")
    }

    /// Where volume claims have their folders.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.0.join("volumes")
    }

    /// Pods, their logs and what else the node keeps.
    pub(crate) fn node_folder(&self) -> PathBuf {
        self.0.join("node")
    }

    /// The node agent's socket.
    pub(crate) fn node_socket(&self) -> PathBuf {
        self.0.join("node.sock")
    }
}
