//! Before the agent runs and after it ended: what the machine allows, what an earlier agent left, and taking it all
//! down.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fs_err as fs;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, broadcast, mpsc, watch};

use super::context::{Context, Names};
use super::memory::ShortMemory;
use super::record::Record;
use super::services::Services;
use super::{Error, Handle, Service, events, machine, nodes, peers, sweep};
use crate::cgroup::{Groups, remove_folders};
use crate::gpu::GpuSlots;
use crate::network::{Network, remove_bridge};
use crate::options::{Isolation, Options};
use crate::protocol::Capabilities;
use crate::runtime::{PodProcess, Spawner};
use crate::services::directory::{Directory, View};

/// Pods started at the same moment; more only wait for each other.
const PARALLEL_STARTS: usize = 8;
const CHANGES: usize = 256;
/// Where control groups were made.
const GROUPS_FILE: &str = "groups.json";
/// So often the removal of control groups is tried.
const GROUP_ATTEMPTS: u32 = 100;

pub(super) async fn build(options: Options) -> Result<Service, Error> {
    let Options {
        client,
        nodes,
        state_dir,
        socket,
        images,
        tools,
        isolation,
        api_address,
        offered_addresses,
        pod_processes,
        stream_patience,
        spawner,
    } = options;
    fs::create_dir_all(&state_dir)?;
    let state_dir = fs::canonicalize(&state_dir)?;
    let lock = fs::File::create(state_dir.join("agent.lock"))?;
    if lock.file().try_lock().is_err() {
        return Err(Error::InUse(state_dir));
    }
    let spawner = Spawner::start(spawner).map_err(|error| Error::Spawner(error.to_string()))?;
    let trial = state_dir.join("trial");
    fs::create_dir_all(&trial)?;
    let capabilities = spawner.probe(&trial).await.map_err(|error| Error::Spawner(error.to_string()))?;
    let _ = fs::remove_dir_all(&trial);
    let found = Record::load_all(&state_dir.join("pods"));
    let taken: Vec<Ipv4Addr> = found
        .iter()
        .filter_map(|(_, record)| match record.address {
            Some(IpAddr::V4(address)) if !record.finished => Some(address),
            _ => None,
        })
        .collect();
    let (network, light_because) = choose_isolation(isolation, &capabilities, &state_dir, &taken)?;
    // An ordinary user has namespaces inside a user namespace, but no network of his own for them.
    let user = network.is_none() && isolation == Isolation::Auto && capabilities.user.is_ok();
    let isolated = network.is_some() || user;
    let light_because = light_because.map(|reason| {
        let shared = "pods share the machine's network, as an ordinary user has no other";
        if user { format!("{shared}: {reason}") } else { reason }
    });
    let level = match (&network, user) {
        (Some(_), _) => "full",
        (None, true) => "user",
        (None, false) => "light",
    };
    if let Some(reason) = &light_because {
        if user {
            tracing::info!(reason = %reason, "pods have processes and files of their own");
        } else {
            tracing::warn!(reason = %reason, "pods run in light isolation: no own network, names or file tree");
        }
    }
    if let (Some(_), Err(reason)) = (&network, &capabilities.overlay) {
        tracing::warn!(%reason, "no overlay: pods share the machine's file tree, and volumes need existing folders");
    }
    let host_ip =
        network.as_ref().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |network| IpAddr::V4(network.gateway()));
    let described = nodes
        .into_iter()
        .map(|node| nodes::NodeSpec::new(node, level, light_because.as_deref()))
        .collect::<Result<Vec<_>, _>>()?;
    let mut gpus: HashMap<String, GpuSlots> =
        described.iter().map(|node| (node.name.clone(), GpuSlots::new(node.gpus))).collect();
    for (_, record) in found.iter().filter(|(_, record)| !record.gpus.is_empty()) {
        if let Some(slots) = gpus.get_mut(&record.node) {
            let _ = slots.allocate(&record.uid, record.gpus.len() as u32, &record.gpus);
        }
    }
    let view = if network.is_some() { View::Network } else { View::Loopback };
    let tools = link_tools(&state_dir, &tools)?;
    let (event_sender, event_queue) = mpsc::channel(events::QUEUE);
    let listener = listen(&socket)?;
    let allocatable: BTreeMap<_, _> =
        described.iter().map(|node| (node.name.clone(), node.allocatable.clone())).collect();
    let context = Arc::new(Context {
        client,
        state_dir: state_dir.clone(),
        images,
        tools,
        isolated,
        user,
        overlay: capabilities.overlay.is_ok() && !user,
        network,
        spawner,
        host_ip,
        groups: find_groups(&state_dir)?,
        pod_processes,
        stream_patience,
        allocatable,
        gpus: Mutex::new(gpus),
        gpus_freed: tokio::sync::Notify::new(),
        starts: Semaphore::new(PARALLEL_STARTS),
        changes: broadcast::channel(CHANGES).0,
        events: event_sender,
        names: Names::default(),
        services: Services::new(Directory::new(view, api_address).offering(offered_addresses)),
        api_address,
        root_authority: ShortMemory::default(),
        tokens: ShortMemory::default(),
        light_addresses: Mutex::new(0),
    });
    let (ready_sender, ready) = watch::channel(false);
    let handle = Handle {
        socket,
        state_dir,
        isolation: level.into(),
        light_because: light_because.map(Into::into),
        ready,
        ready_sender: Arc::new(ready_sender),
    };
    Ok(Service { context, nodes: described, listener, events: event_queue, handle, _lock: lock })
}

fn choose_isolation(
    wanted: Isolation,
    capabilities: &Capabilities,
    state_dir: &Path,
    taken: &[Ipv4Addr],
) -> Result<(Option<Network>, Option<String>), Error> {
    if wanted == Isolation::Light {
        return Ok((None, Some("light isolation was asked for".to_owned())));
    }
    let refused = match &capabilities.namespaces {
        Ok(()) => match Network::start(&bridge_name(state_dir), taken) {
            Ok(network) => return Ok((Some(network), None)),
            Err(error) => error.to_string(),
        },
        Err(reason) => reason.clone(),
    };
    if wanted == Isolation::Full { Err(Error::Isolation(refused)) } else { Ok((None, Some(refused))) }
}

/// A name of at most 15 bytes that belongs to the state folder.
fn bridge_name(state_dir: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let digest = Sha256::digest(state_dir.as_os_str().as_bytes());
    format!("mu-{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
}

/// The groups lie below the one of this process; whoever takes them down may be in another, so it is written down.
fn find_groups(state_dir: &Path) -> Result<Groups, Error> {
    let groups = Groups::find(&group_name(state_dir));
    let mut folders = group_folders(state_dir);
    folders.extend(groups.folders().map(Path::to_owned));
    folders.sort();
    folders.dedup();
    let text = serde_json::to_vec(&folders).map_err(std::io::Error::from)?;
    fs::write(state_dir.join(GROUPS_FILE), text)?;
    Ok(groups)
}

/// Only folders with the node's own name: the file alone must not decide what is removed.
fn group_folders(state_dir: &Path) -> Vec<PathBuf> {
    let text = fs::read(state_dir.join(GROUPS_FILE)).unwrap_or_default();
    let mut folders: Vec<PathBuf> = serde_json::from_slice(&text).unwrap_or_default();
    folders.retain(|folder| folder.ends_with(group_name(state_dir)));
    folders
}

fn group_name(state_dir: &Path) -> String {
    bridge_name(state_dir).replace("mu-", "muster-")
}

/// Tools as files of one folder, so that one mount brings them all into a pod.
fn link_tools(state_dir: &Path, tools: &[(String, PathBuf)]) -> Result<PathBuf, Error> {
    let folder = state_dir.join("tools");
    fs::create_dir_all(&folder)?;
    let mut missing = Vec::new();
    for (name, file) in tools {
        let (file, target) = (fs::canonicalize(file)?, folder.join(name));
        if !is_copy(&file, &target) {
            // Before anything is copied: the disk may have no room for the old and the new.
            let _ = fs::remove_file(&target);
            missing.push((file, target));
        }
    }
    let mut copies: HashMap<PathBuf, PathBuf> = HashMap::new();
    for (file, target) in missing {
        // A symbolic link would point at nothing where the pod's root is not the machine's. From another disk a file
        // is copied, once for all its names.
        if fs::hard_link(copies.get(&file).unwrap_or(&file), &target).is_err() {
            fs::copy(&file, &target)?;
            copies.insert(file, target);
        }
    }
    Ok(folder)
}

/// Whether the target is the file, or was copied from it as it is now.
fn is_copy(file: &Path, target: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let (Ok(file), Ok(target)) = (fs::metadata(file), fs::metadata(target)) else { return false };
    let is_same = (file.dev(), file.ino()) == (target.dev(), target.ino());
    let is_newer = matches!((file.modified(), target.modified()), (Ok(file), Ok(target)) if file <= target);
    is_same || (file.len() == target.len() && is_newer)
}

fn listen(socket: &Path) -> Result<tokio::net::UnixListener, Error> {
    let _ = fs::remove_file(socket);
    let listener = machine::bind_unix(socket)?;
    fs::set_permissions(socket, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(tokio::net::UnixListener::from_std(listener)?)
}

/// Ends the processes of a pod that has no worker and removes its files, but not its logs.
async fn end_pod(state_dir: &Path, record: &Record) {
    let directory = state_dir.join("pods").join(&record.uid);
    if let Ok(process) = PodProcess::adopt(&directory) {
        process.end().await;
    } else if !record.finished {
        sweep::end_processes_of(&record.uid);
    }
    if let Some(peers) = &record.peers {
        peers::leave(state_dir, peers, &record.uid);
    }
    remove_folder(&directory);
}

fn remove_folder(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %folder.display(), %error, "cannot remove what a pod left");
    }
}

/// Ends a pod whose object is gone, removes all its files and gives back what it held.
pub(super) async fn forget_pod(context: &Context, record: Record) {
    end_pod(&context.state_dir, &record).await;
    remove_folder(&context.logs_dir(&record.namespace, &record.name, &record.uid));
    context.groups.remove(&record.uid, None);
    if let Some(slots) = context.gpus.lock().get_mut(&record.node) {
        slots.release(&record.uid);
    }
    context.gpus_freed.notify_waiters();
    if let (Some(network), Some(IpAddr::V4(address)), false) =
        (&context.network, record.address, record.finished)
    {
        network.release(address);
    }
}

/// Removes folders of pods and logs that belong to no pod: an agent may have been killed before it wrote the
/// record, or between two removals.
pub(super) fn remove_strangers(context: &Context, is_known: impl Fn(&str) -> bool) {
    for folder in [context.pods_dir(), context.state_dir.join("logs")] {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let uid = name.rsplit_once('_').map_or(&*name, |(_, uid)| uid);
            if !is_known(uid) {
                remove_folder(&entry.path());
            }
        }
    }
}

/// Ends every pod of the state folder and removes what the node made: processes, namespaces, mounts, the bridge,
/// and all files of the folder that are the node's, except `logs`. Call it when no agent runs.
///
/// Logs stay until the object of their pod is deleted, as they do with a kubelet: whoever looks at a finished pod after
/// the next start finds them. That start removes those of pods whose objects are gone by then.
pub async fn tear_down(state_dir: &Path) -> Result<(), Error> {
    let Ok(state_dir) = fs::canonicalize(state_dir) else { return Ok(()) };
    for (_, record) in Record::load_all(&state_dir.join("pods")) {
        end_pod(&state_dir, &record).await;
    }
    remove_bridge(&bridge_name(&state_dir));
    let groups = group_folders(&state_dir);
    // The last process of a group leaves it a moment after its end.
    for _ in 0..GROUP_ATTEMPTS {
        if remove_folders(&groups) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for folder in ["pods", "peers", "peers-members", "tools", "trial"] {
        match fs::remove_dir_all(state_dir.join(folder)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    for file in ["node.sock", "agent.lock", GROUPS_FILE] {
        let _ = fs::remove_file(state_dir.join(file));
    }
    Ok(())
}
