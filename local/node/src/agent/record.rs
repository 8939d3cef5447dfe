//! What the agent writes down of a pod before it starts it, so that the next agent knows who holds what.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::pod_volumes::Prepared;

/// A pod that this machine has, or had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The pod's uid.
    pub(crate) uid: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// Which Node it runs on.
    pub(crate) node: String,
    /// Its address.
    pub(crate) address: Option<IpAddr>,
    /// GPU slots it holds.
    pub(crate) gpus: Vec<u32>,
    /// The folder it shares with the other pods of its owner.
    pub(crate) peers: Option<PathBuf>,
    /// Its volumes by name, once they are made.
    #[serde(default)]
    pub(crate) volumes: BTreeMap<String, Prepared>,
    /// Its processes are gone for good; only logs are left.
    pub(crate) finished: bool,
}

const FILE: &str = "pod.json";

impl Record {
    /// Writes the record into the pod's folder: the whole new one or, after a crash, the whole old one.
    pub(crate) fn save(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let next = directory.join("pod.json.next");
        fs::write(&next, serde_json::to_vec(self)?)?;
        fs::rename(next, directory.join(FILE))
    }

    /// Reads the record of a pod's folder.
    pub(crate) fn load(directory: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(directory.join(FILE))?)?)
    }

    /// The pods of a folder of pods. What cannot be read was never started.
    pub(crate) fn load_all(pods: &Path) -> Vec<(PathBuf, Self)> {
        let Ok(entries) = fs::read_dir(pods) else { return Vec::new() };
        entries.flatten().filter_map(|entry| Some((entry.path(), Self::load(&entry.path()).ok()?))).collect()
    }
}
