//! Sockets at the addresses of services.
//!
//! They live in a network namespace of their own, which every pod has a route to: there each address and port is
//! free, whatever the machine itself listens on, and nobody but the pods gets there. A socket stays in the namespace
//! in which it was opened, so a thread that lives there opens them all.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use nix::net::if_::if_nametoindex;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::oneshot;

use super::netlink::Netlink;
use super::{Error, SERVICES, SERVICES_PREFIX, enter_new_namespace, failed, interface_name};

enum Job {
    Tcp(SocketAddrV4, oneshot::Sender<io::Result<std::net::TcpListener>>),
    Udp(SocketAddrV4, oneshot::Sender<io::Result<std::net::UdpSocket>>),
}

/// Opens sockets in the namespace of services.
#[derive(Debug, Clone)]
pub(crate) struct Sockets {
    jobs: std::sync::mpsc::Sender<Job>,
}

impl Sockets {
    /// Makes the namespace and connects it with the bridge at `address`.
    pub(super) fn start(host: &Netlink, bridge: u32, address: Ipv4Addr) -> Result<Self, Error> {
        // The namespace of an agent that was killed a moment ago may still be there.
        if let Ok(index) = if_nametoindex(interface_name(address).as_str()) {
            let _ = host.delete_link(index);
        }
        let (jobs, work) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            // The thread that makes the namespace moves into it, and the caller must not.
            let made = scope.spawn(|| {
                let (namespace, inside) = enter_new_namespace(host, bridge, address)?;
                inside
                    .own_block(SERVICES, SERVICES_PREFIX, 1)
                    .map_err(failed("own the addresses of services"))?;
                Ok(namespace)
            });
            made.join().map_err(|_| Error::Ended)?
        })
        .and_then(|namespace: std::os::fd::OwnedFd| {
            std::thread::Builder::new()
                .name("service-sockets".to_owned())
                .spawn(move || {
                    let entered = nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET);
                    serve(work, entered.map_err(io::Error::from));
                })
                .map_err(failed("start the thread for sockets of services"))
        })?;
        Ok(Self { jobs })
    }

    /// Listens for connections.
    pub(crate) async fn listen(&self, address: SocketAddrV4) -> io::Result<TcpListener> {
        let (answer, opened) = oneshot::channel();
        self.jobs.send(Job::Tcp(address, answer)).map_err(|_| ended())?;
        TcpListener::from_std(opened.await.map_err(|_| ended())??)
    }

    /// Listens for datagrams.
    pub(crate) async fn bind(&self, address: SocketAddrV4) -> io::Result<UdpSocket> {
        let (answer, opened) = oneshot::channel();
        self.jobs.send(Job::Udp(address, answer)).map_err(|_| ended())?;
        UdpSocket::from_std(opened.await.map_err(|_| ended())??)
    }
}

fn ended() -> io::Error {
    io::Error::other("the thread for sockets of services ended")
}

fn serve(work: std::sync::mpsc::Receiver<Job>, entered: io::Result<()>) {
    if let Err(error) = entered {
        tracing::warn!(%error, "cannot enter the namespace of services; pods reach none");
        return;
    }
    for job in work {
        match job {
            Job::Tcp(address, answer) => {
                let opened = std::net::TcpListener::bind(address);
                let _ = answer.send(opened.and_then(|socket| socket.set_nonblocking(true).map(|()| socket)));
            }
            Job::Udp(address, answer) => {
                let opened = std::net::UdpSocket::bind(address);
                let _ = answer.send(opened.and_then(|socket| socket.set_nonblocking(true).map(|()| socket)));
            }
        }
    }
}
