//! The few routing messages that give a pod its network: build, send, wait for the kernel's answer.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};

const NEW_LINK: u16 = libc::RTM_NEWLINK;
const DELETE_LINK: u16 = libc::RTM_DELLINK;
const NEW_ADDRESS: u16 = libc::RTM_NEWADDR;
const NEW_ROUTE: u16 = libc::RTM_NEWROUTE;
const UP: u32 = libc::IFF_UP as u32;
/// `VETH_INFO_PEER` of the kernel's `linux/veth.h`.
const VETH_INFO_PEER: u16 = 1;
/// `IFLA_GSO_IPV4_MAX_SIZE` of the kernel's `linux/if_link.h`.
const LARGEST_SEGMENT: u16 = 63;
/// What the kernel takes at most: eight times what an IPv4 packet can say of its length.
const LARGEST_SEGMENT_BYTES: u32 = 8 * 65_535;
const HEADER: usize = 16;

/// A routing socket of the network namespace the opening thread was in.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// Makes a bridge; one of that name may exist.
    pub(super) fn add_bridge(&self, name: &str) -> io::Result<()> {
        let mut message = Message::link(NEW_LINK, 0, libc::NLM_F_CREATE | libc::NLM_F_EXCL, UP);
        message.string(libc::IFLA_IFNAME, name);
        message.nested(libc::IFLA_LINKINFO, |info| info.string(libc::IFLA_INFO_KIND, "bridge"));
        match self.request(message) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// Removes an interface and with it, for a bridge or pair, what hangs on it.
    pub(super) fn delete_link(&self, index: u32) -> io::Result<()> {
        self.request(Message::link(DELETE_LINK, index, 0, 0))
    }

    pub(super) fn set_up(&self, index: u32) -> io::Result<()> {
        self.request(Message::link(NEW_LINK, index, 0, UP))
    }

    /// Lets an interface take up to half a megabyte of a TCP stream at once ("BIG TCP"). The way between two pods costs the
    /// same for each packet: with the usual 64 KiB, large transfers take a fifth longer than over the loopback interface,
    /// with this they are faster. Kernels before 6.3 have no such setting and ignore it.
    pub(super) fn allow_large_segments(&self, name: &str) {
        let mut message = Message::link(NEW_LINK, 0, 0, 0);
        message.string(libc::IFLA_IFNAME, name);
        message.bytes(LARGEST_SEGMENT, &LARGEST_SEGMENT_BYTES.to_ne_bytes());
        if let Err(error) = self.request(message) {
            tracing::debug!(interface = name, %error, "large transfers will be slower");
        }
    }

    /// Makes a pair of interfaces: `name` here on the bridge, `eth0`, still down, in the namespace `peer`. The hardware
    /// address of `eth0` follows from its address, so that neighbours need not learn a new one when it is made again.
    pub(super) fn add_pair(
        &self,
        name: &str,
        bridge: u32,
        peer: BorrowedFd<'_>,
        address: Ipv4Addr,
    ) -> io::Result<()> {
        let [a, b, c, d] = address.octets();
        let mut message = Message::link(NEW_LINK, 0, libc::NLM_F_CREATE | libc::NLM_F_EXCL, UP);
        message.string(libc::IFLA_IFNAME, name);
        message.bytes(libc::IFLA_MASTER, &bridge.to_ne_bytes());
        message.nested(libc::IFLA_LINKINFO, |info| {
            info.string(libc::IFLA_INFO_KIND, "veth");
            info.nested(libc::IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |other| {
                    // It cannot go up before the pair is complete.
                    other.payload.extend_from_slice(&link_header(0, 0));
                    other.string(libc::IFLA_IFNAME, "eth0");
                    // The second bit of the first byte says that nobody else gave it out.
                    other.bytes(libc::IFLA_ADDRESS, &[2, 0x42, a, b, c, d]);
                    other.bytes(libc::IFLA_NET_NS_FD, &peer.as_raw_fd().to_ne_bytes());
                });
            });
        });
        self.request(message)
    }

    pub(super) fn add_address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let mut message = Message::new(NEW_ADDRESS, flags);
        message.payload.extend_from_slice(&[libc::AF_INET as u8, prefix, 0, 0]);
        message.payload.extend_from_slice(&index.to_ne_bytes());
        message.bytes(libc::IFA_LOCAL, &address.octets());
        message.bytes(libc::IFA_ADDRESS, &address.octets());
        self.request(message)
    }

    pub(super) fn add_default_route(&self, gateway: Ipv4Addr) -> io::Result<()> {
        self.add_route(Ipv4Addr::UNSPECIFIED, 0, gateway)
    }

    /// Sends packets for a block of addresses to `gateway`.
    pub(super) fn add_route(&self, block: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> io::Result<()> {
        let mut message =
            Message::route(prefix, libc::RT_TABLE_MAIN, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST);
        if prefix > 0 {
            message.bytes(libc::RTA_DST, &block.octets());
        }
        message.bytes(libc::RTA_GATEWAY, &gateway.octets());
        self.request(message)
    }

    /// Makes every address of a block one of this namespace's own.
    pub(super) fn own_block(&self, block: Ipv4Addr, prefix: u8, index: u32) -> io::Result<()> {
        let mut message = Message::route(prefix, libc::RT_TABLE_LOCAL, libc::RT_SCOPE_HOST, libc::RTN_LOCAL);
        message.bytes(libc::RTA_DST, &block.octets());
        message.bytes(libc::RTA_OIF, &index.to_ne_bytes());
        self.request(message)
    }

    fn request(&self, message: Message) -> io::Result<()> {
        let bytes = message.finish();
        rustix::net::send(self.socket.as_fd(), &bytes, rustix::net::SendFlags::empty())?;
        let mut answer = [0; 4096];
        let (_, length) =
            rustix::net::recv(self.socket.as_fd(), &mut answer, rustix::net::RecvFlags::empty())?;
        // The answer to a request with ACK is one error message; its code is 0 when all went well.
        match answer.get(HEADER..HEADER + 4).and_then(|code| code.first_chunk::<4>()) {
            Some(code) if length >= HEADER + 4 => match i32::from_ne_bytes(*code) {
                0 => Ok(()),
                error => Err(io::Error::from_raw_os_error(-error)),
            },
            _ => Err(io::Error::other("short answer from the kernel's routing socket")),
        }
    }
}

fn link_header(index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

struct Message {
    kind: u16,
    flags: u16,
    payload: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: libc::c_int) -> Self {
        let flags = (flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        Self { kind, flags, payload: Vec::with_capacity(128) }
    }

    fn link(kind: u16, index: u32, flags: libc::c_int, up: u32) -> Self {
        let mut message = Self::new(kind, flags);
        message.payload.extend_from_slice(&link_header(index, up));
        message
    }

    fn route(prefix: u8, table: u8, scope: u8, kind: u8) -> Self {
        let mut message = Self::new(NEW_ROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE);
        let family = libc::AF_INET as u8;
        message.payload.extend_from_slice(&[family, prefix, 0, 0, table, libc::RTPROT_BOOT, scope, kind]);
        message.payload.extend_from_slice(&[0; 4]);
        message
    }

    fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.payload.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
        self.payload.extend_from_slice(&kind.to_ne_bytes());
        self.payload.extend_from_slice(value);
        self.payload.resize(self.payload.len().next_multiple_of(4), 0);
    }

    fn string(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self { kind: 0, flags: 0, payload: Vec::new() };
        fill(&mut inner);
        self.bytes(kind, &inner.payload);
    }

    fn finish(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.payload.len());
        bytes.extend_from_slice(&((HEADER + self.payload.len()) as u32).to_ne_bytes());
        bytes.extend_from_slice(&self.kind.to_ne_bytes());
        bytes.extend_from_slice(&self.flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}
