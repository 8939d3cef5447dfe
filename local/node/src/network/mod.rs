//! A network namespace for every pod: its own address on a bridge of the machine.
//!
//! Making a namespace and its interface pair takes the kernel a moment and taking one down takes it longer, so a
//! thread keeps a few ready and uses those again that a pod left as it found them.

pub(crate) mod addresses;
mod netlink;
mod sockets;

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::TrySendError;

use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use addresses::{Addresses, BLOCK_PREFIX, BLOCKS};
use netlink::Netlink;
pub(crate) use sockets::Sockets;

/// Addresses of services. Those of all clusters are of this block; a pod sees its own cluster's alone.
const SERVICES: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 0);
const SERVICES_PREFIX: u8 = 16;

/// So many namespaces wait for a pod.
const READY_NAMESPACES: usize = 8;
/// So many used namespaces wait to be used again; the kernel takes down the rest.
const USED_NAMESPACES: usize = 64;
/// So often a namespace is tried before a pod hears of the failure.
const ATTEMPTS: usize = 5;

/// Why pods get no network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the kernel failed.
    #[error("{what}: {source}")]
    Kernel {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// All addresses of the node are in use.
    #[error("all {} addresses of the node are in use", (1_u32 << (32 - BLOCK_PREFIX)) - 4)]
    NoAddress,
    /// Every block of 10.244.0.0/16 is used by another bridge of this machine.
    #[error(
        "every block of 10.244.0.0/16 is used by another cluster of this machine; stop one with `muster down`"
    )]
    NoBlock,
    /// The thread that makes namespaces ended.
    #[error("the network thread ended; see the log")]
    Ended,
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Kernel { what: what.into(), source }
}

/// A network namespace ready for a pod.
#[derive(Debug)]
pub(crate) struct PodNetwork {
    /// The namespace; it lives as long as this or a process in it.
    pub(crate) namespace: OwnedFd,
    /// The pod's address.
    pub(crate) address: Ipv4Addr,
}

/// The bridge of one agent and its supply of namespaces.
#[derive(Debug)]
pub(crate) struct Network {
    gateway: Ipv4Addr,
    sockets: Sockets,
    addresses: Arc<Mutex<Addresses>>,
    ready: tokio::sync::Mutex<mpsc::Receiver<Result<PodNetwork, Error>>>,
    used: std::sync::mpsc::SyncSender<PodNetwork>,
}

impl Network {
    /// Makes (or finds) the bridge `name` and starts the thread. `taken` are addresses of running pods.
    pub(crate) fn start(name: &str, taken: &[Ipv4Addr]) -> Result<Self, Error> {
        let host = Netlink::open().map_err(failed("open a routing socket"))?;
        let (block, index) = set_up_bridge(&host, name)?;
        let mut addresses = Addresses::new(block);
        for address in taken {
            addresses.reserve(*address);
        }
        let (gateway, services) = (addresses.gateway(), addresses.services());
        let sockets = Sockets::start(&host, index, services)?;
        let addresses = Arc::new(Mutex::new(addresses));
        let (sender, ready) = mpsc::channel(READY_NAMESPACES);
        let (used, returned) = std::sync::mpsc::sync_channel(USED_NAMESPACES);
        let maker =
            Maker { host, bridge: index, gateway, services, addresses: Arc::clone(&addresses), returned };
        std::thread::Builder::new()
            .name("pod-network".to_owned())
            .spawn(move || maker.supply(&sender))
            .map_err(failed("start the network thread"))?;
        Ok(Self { gateway, sockets, addresses, ready: tokio::sync::Mutex::new(ready), used })
    }

    /// The machine's address as pods see it.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// Opens sockets at the addresses of services.
    pub(crate) fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// A namespace for a pod.
    pub(crate) async fn take(&self) -> Result<PodNetwork, Error> {
        self.ready.lock().await.recv().await.unwrap_or(Err(Error::Ended))
    }

    /// Gives back the namespace of a pod whose processes are gone.
    pub(crate) fn give_back(&self, network: PodNetwork) {
        if let Err(refused) = self.used.try_send(network) {
            let (TrySendError::Full(network) | TrySendError::Disconnected(network)) = refused;
            self.release(network.address);
        }
    }

    /// Gives back the address of a pod that is gone.
    pub(crate) fn release(&self, address: Ipv4Addr) {
        self.addresses.lock().release(address);
    }
}

/// Removes the bridge `name` if there is one.
pub(crate) fn remove_bridge(name: &str) {
    if let (Ok(index), Ok(host)) = (if_nametoindex(name), Netlink::open())
        && let Err(error) = host.delete_link(index)
    {
        tracing::warn!(bridge = name, %error, "cannot remove the bridge");
    }
}

/// Returns the number of the address block and the index of the bridge.
fn set_up_bridge(host: &Netlink, name: &str) -> Result<(u32, u32), Error> {
    // Two agents that start at once must not choose the same block.
    let lock =
        fs_err::File::create(std::env::temp_dir().join("muster-network.lock")).map_err(failed("lock"))?;
    lock.file().lock().map_err(failed("lock the choice of addresses"))?;
    host.add_bridge(name).map_err(failed(format!("make bridge {name}")))?;
    host.allow_large_segments(name);
    let index = if_nametoindex(name).map_err(|error| failed(format!("find bridge {name}"))(error.into()))?;
    let interfaces = nix::ifaddrs::getifaddrs().map_err(|error| failed("list addresses")(error.into()))?;
    let mut used = [false; BLOCKS as usize];
    let mut own = None;
    for interface in interfaces {
        let Some(address) = interface.address.as_ref().and_then(|address| address.as_sockaddr_in()) else {
            continue;
        };
        for block in 0..BLOCKS {
            if Addresses::new(block).gateway() == address.ip() {
                used[block as usize] = true;
                if interface.interface_name == name {
                    own = Some(block);
                }
            }
        }
    }
    if let Some(block) = own {
        return Ok((block, index));
    }
    let Some(block) = (0..BLOCKS).find(|block| !used[*block as usize]) else {
        let _ = host.delete_link(index);
        return Err(Error::NoBlock);
    };
    host.add_address(index, Addresses::new(block).gateway(), BLOCK_PREFIX)
        .map_err(failed(format!("give bridge {name} its address")))?;
    Ok((block, index))
}

/// The thread's side: it hops into every namespace it makes.
struct Maker {
    host: Netlink,
    bridge: u32,
    gateway: Ipv4Addr,
    services: Ipv4Addr,
    addresses: Arc<Mutex<Addresses>>,
    returned: std::sync::mpsc::Receiver<PodNetwork>,
}

impl Maker {
    fn supply(self, ready: &mpsc::Sender<Result<PodNetwork, Error>>) {
        while !ready.is_closed() {
            let made = self.reuse().map(Ok);
            let made = made.unwrap_or_else(|| self.make_patiently());
            if let Err(error) = &made {
                tracing::warn!(%error, "cannot make a pod network");
            }
            if ready.blocking_send(made).is_err() {
                return;
            }
        }
    }

    /// A namespace of an earlier pod, if it is as that pod found it.
    fn reuse(&self) -> Option<PodNetwork> {
        while let Ok(network) = self.returned.try_recv() {
            if is_untouched(&network) {
                return Some(network);
            }
            self.addresses.lock().release(network.address);
        }
        None
    }

    fn make_patiently(&self) -> Result<PodNetwork, Error> {
        // A name may still be held by a namespace that the kernel has not yet taken down; the next one is free.
        (1..ATTEMPTS).find_map(|_| self.make().ok()).map_or_else(|| self.make(), Ok)
    }

    fn make(&self) -> Result<PodNetwork, Error> {
        let address = self.addresses.lock().allocate().ok_or(Error::NoAddress)?;
        let made = self.make_with(address);
        if made.is_err() {
            self.addresses.lock().release(address);
        }
        made
    }

    fn make_with(&self, address: Ipv4Addr) -> Result<PodNetwork, Error> {
        let (namespace, inside) = enter_new_namespace(&self.host, self.bridge, address)?;
        inside.add_default_route(self.gateway).map_err(failed("set the default route"))?;
        inside
            .add_route(SERVICES, SERVICES_PREFIX, self.services)
            .map_err(failed("set the route to services"))?;
        Ok(PodNetwork { namespace, address })
    }
}

/// Makes a namespace with an address on the bridge; the calling thread ends up inside.
fn enter_new_namespace(host: &Netlink, bridge: u32, address: Ipv4Addr) -> Result<(OwnedFd, Netlink), Error> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| failed("make a network namespace")(error.into()))?;
    let namespace: OwnedFd =
        File::open(Path::new("/proc/thread-self/ns/net")).map_err(failed("open the namespace"))?.into();
    let outside = interface_name(address);
    host.add_pair(&outside, bridge, namespace.as_fd(), address)
        .map_err(failed(format!("connect {address} with the bridge (a bridge has room for 1024 pods)")))?;
    host.allow_large_segments(&outside);
    let inside = Netlink::open().map_err(failed("open a routing socket in the namespace"))?;
    inside.set_up(1).map_err(failed("start the loopback interface"))?;
    let index = if_nametoindex("eth0").map_err(|error| failed("find eth0")(error.into()))?;
    inside.allow_large_segments("eth0");
    inside.set_up(index).map_err(failed("start eth0"))?;
    inside.add_address(index, address, BLOCK_PREFIX).map_err(failed(format!("set address {address}")))?;
    Ok((namespace, inside))
}

/// The machine's end of the pair of interfaces that leads to an address.
fn interface_name(address: Ipv4Addr) -> String {
    format!("mu{:08x}", u32::from(address))
}

/// Whether the namespace has its two interfaces, its one address, its three routes, and no open or dying socket. The
/// calling thread ends up inside.
fn is_untouched(network: &PodNetwork) -> bool {
    if setns(&network.namespace, CloneFlags::CLONE_NEWNET).is_err() {
        return false;
    }
    let text =
        |name: &str| fs_err::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    let has_lines = |name: &str, count: usize| text(name).lines().count() == count;
    // The tables of sockets themselves cannot be read quickly: the kernel walks those of all namespaces.
    let no_sockets = || {
        let counts = text("sockstat") + &text("sockstat6");
        let zero = [("sockets:", "used"), ("TCP:", "inuse"), ("TCP:", "tw"), ("TCP6:", "inuse")];
        zero.iter().all(|(line, name)| count_of(&counts, line, name) == Some(0))
    };
    let addresses = || {
        let list = nix::ifaddrs::getifaddrs().ok()?;
        let own = list.filter(|interface| interface.interface_name == "eth0");
        Some(own.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip())).collect::<Vec<_>>())
    };
    has_lines("dev", 4) && has_lines("route", 4) && no_sockets() && addresses() == Some(vec![network.address])
}

/// A number of `sockstat`: lines of a name and pairs of what and how many.
fn count_of(text: &str, line: &str, name: &str) -> Option<u64> {
    let found = text.lines().find_map(|found| found.strip_prefix(line))?;
    let mut words = found.split_whitespace();
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::count_of;

    #[test]
    fn counts_of_sockets_are_read() {
        let text = "sockets: used 5\nTCP: inuse 3 orphan 0 tw 1 alloc 6 mem 192\nTCP6: inuse 0\n";
        assert_eq!(count_of(text, "sockets:", "used"), Some(5));
        assert_eq!(count_of(text, "TCP:", "tw"), Some(1));
        assert_eq!(count_of(text, "TCP6:", "inuse"), Some(0));
        assert_eq!(count_of(text, "UDP:", "inuse"), None);
    }
}
