//! What all pod workers of one agent share.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Instant;

use fs_err as fs;
use kube::api::Api;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, broadcast, mpsc};

use super::events::Event;
use super::memory::ShortMemory;
use super::services::Services;
use crate::cgroup::Groups;
use crate::gpu::GpuSlots;
use crate::hosts::{self, Identity};
use crate::images::ImageRule;
use crate::network::Network;
use crate::options::StreamPatience;
use crate::runtime::Spawner;
use crate::services::directory::Directory;
use crate::sources::{Entries, Reference, Sources};

/// A ConfigMap or Secret changed: its namespace and name.
pub(crate) type Change = (String, Reference);

/// ConfigMap with the certificate authority of the API server, which is in every namespace.
const ROOT_AUTHORITY: &str = "kube-root-ca.crt";

/// Uid of the pod, service account, audience and lifetime of a token.
pub(super) type TokenKey = (String, String, String, Option<i64>);

/// What all pod workers share.
pub(crate) struct Context {
    pub(crate) client: kube::Client,
    pub(crate) state_dir: PathBuf,
    pub(crate) images: Vec<ImageRule>,
    pub(crate) tools: PathBuf,
    pub(crate) isolated: bool,
    /// The namespaces of pods are inside user namespaces.
    pub(crate) user: bool,
    pub(crate) overlay: bool,
    pub(crate) network: Option<Network>,
    pub(crate) spawner: Spawner,
    pub(crate) host_ip: IpAddr,
    pub(crate) groups: Groups,
    /// How many processes and threads a pod may have.
    pub(crate) pod_processes: Option<u64>,
    /// With clients of streams.
    pub(crate) stream_patience: StreamPatience,
    /// Allocatable resources by node.
    pub(crate) allocatable: BTreeMap<String, BTreeMap<String, String>>,
    pub(crate) gpus: Mutex<HashMap<String, GpuSlots>>,
    /// Wakes those that wait for GPU slots.
    pub(crate) gpus_freed: Notify,
    /// Bounds how many pods are started at the same moment.
    pub(crate) starts: Semaphore,
    pub(crate) changes: broadcast::Sender<Change>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) names: Names,
    pub(crate) services: Services,
    pub(crate) api_address: Option<SocketAddr>,
    /// Certificate authority of the API server by namespace: every pod has it.
    pub(super) root_authority: ShortMemory<String, Entries>,
    pub(super) tokens: ShortMemory<TokenKey, String>,
    pub(crate) light_addresses: Mutex<u32>,
}

impl Context {
    pub(crate) fn pods_dir(&self) -> PathBuf {
        self.state_dir.join("pods")
    }

    /// Where the logs of a pod lie.
    pub(crate) fn logs_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.state_dir.join("logs").join(format!("{namespace}_{name}_{uid}"))
    }

    /// Fetches what a pod names; what does not exist is left out.
    pub(crate) async fn fetch(
        &self,
        namespace: &str,
        references: impl IntoIterator<Item = Reference>,
    ) -> Result<Sources, kube::Error> {
        let mut sources = Sources::default();
        for reference in references {
            match &reference {
                Reference::ConfigMap(name) => {
                    let shared = name == ROOT_AUTHORITY;
                    let remembered = if shared {
                        self.root_authority.get(&namespace.to_owned(), Instant::now())
                    } else {
                        None
                    };
                    if let Some(entries) = remembered {
                        sources.add(reference, entries);
                        continue;
                    }
                    let api = Api::namespaced(self.client.clone(), namespace);
                    if let Some(found) = api.get_opt(name).await? {
                        let entries = sources.add_config_map(name, found);
                        if shared {
                            self.root_authority.put(namespace.to_owned(), entries.clone(), Instant::now());
                        }
                    }
                }
                Reference::Secret(name) => {
                    let api = Api::namespaced(self.client.clone(), namespace);
                    if let Some(found) = api.get_opt(name).await? {
                        sources.add_secret(name, found);
                    }
                }
            }
        }
        Ok(sources)
    }

    /// Queues an event about a pod; when too many wait it is dropped.
    pub(crate) fn event(&self, event: Event) {
        let _ = self.events.try_send(event);
    }
}

/// The hosts files that say which services there are.
#[derive(Default)]
pub(crate) struct Names {
    files: Mutex<HashMap<PathBuf, Identity>>,
}

impl Names {
    /// Writes the hosts file `path`, and keeps it current if it lists services.
    pub(crate) fn add(
        &self,
        path: PathBuf,
        identity: Identity,
        directory: &Directory,
    ) -> std::io::Result<()> {
        let mut files = self.files.lock();
        fs::write(&path, hosts::render(&identity, directory))?;
        if identity.lists_services {
            files.insert(path, identity);
        }
        Ok(())
    }

    /// Leaves the file alone from now on.
    pub(crate) fn remove(&self, path: &PathBuf) {
        self.files.lock().remove(path);
    }

    /// Rewrites the files that say something else now. They are bound into pods, so they are written in place: one
    /// write of the whole text, then the cut.
    pub(crate) fn refresh(&self, directory: &Directory) {
        for (path, identity) in self.files.lock().iter() {
            if let Err(error) = overwrite(path, &hosts::render(identity, directory)) {
                tracing::warn!(path = %path.display(), %error, "cannot update the names of a pod");
            }
        }
    }
}

fn overwrite(path: &PathBuf, text: &str) -> std::io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    let file = fs::OpenOptions::new().write(true).open(path)?;
    std::os::unix::fs::FileExt::write_all_at(file.file(), text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}
