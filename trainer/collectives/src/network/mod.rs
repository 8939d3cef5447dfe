//! The transport between hosts: TCP connections from every rank to every rank of another host.
//!
//! Two ranks keep three connections: one for the data of collectives, one for messages, so that a message nobody has
//! asked for yet holds up no collective, and one on which they hear of each other, whatever the data does. All data
//! goes behind a [`Header`](header::Header) that names the call, and nothing is read that the receiver's own call
//! does not expect.
//!
//! Where the ranks have certificates, everything behind the challenge of the side that listens goes under TLS 1.3, and
//! both sides show theirs. It is done in the thread that moves the data, since the kernel's own TLS is a module that
//! containers can neither load nor rely on; without certificates the data still moves straight from and to its place.

mod call_on;
mod credentials;
mod door;
mod exchange;
mod handshake;
mod header;
mod meeting;
mod mesh;
mod monitor;
mod notice;
mod peers;
mod preface;
mod secured;
mod sockets;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use credentials::CredentialsError;
pub(crate) use door::Door;
pub(crate) use exchange::{Ended, Incoming, Lane, Outgoing};
pub(crate) use header::Content;
pub(crate) use peers::Peers;

use crate::control::Control;
use crate::error::Error;
use crate::options::{NetworkOptions, Options};
use crate::rendezvous::Patience;
use credentials::Credentials;
use handshake::Roster;
use meeting::Meeting;
use monitor::Monitor;
use peers::Line;
use stream::Stream;

/// The ranks of a group, by host.
#[derive(Debug)]
pub(crate) struct Hosts {
    /// The ranks of each host, ascending; hosts stand in the order of their lowest ranks.
    pub(crate) ranks: Vec<Vec<usize>>,
    /// How the host of each rank calls itself.
    pub(crate) names: Vec<String>,
}

impl Hosts {
    fn of(roster: &Roster) -> Self {
        let mut ranks: Vec<Vec<usize>> = Vec::new();
        for (rank, seat) in roster.seats.iter().enumerate() {
            match ranks.iter_mut().find(|host| roster.seats[host[0]].identity == seat.identity) {
                Some(host) => host.push(rank),
                None => ranks.push(vec![rank]),
            }
        }
        Self { ranks, names: roster.seats.iter().map(|seat| seat.host.clone()).collect() }
    }
}

/// A group whose ranks know each other, before they are connected.
#[derive(Debug)]
pub(crate) struct Acquaintance<'a> {
    meeting: Meeting,
    credentials: Credentials,
    patience: Patience<'a>,
    pub(crate) hosts: Hosts,
}

impl<'a> Acquaintance<'a> {
    /// Finds the other ranks; `door` is where this rank listens already, if it does.
    pub(crate) fn make(
        options: &'a Options,
        network: &NetworkOptions,
        door: Option<Arc<Door>>,
    ) -> Result<Self, Error> {
        let patience = Patience::to_form(options);
        let credentials = Credentials::read(network)?;
        let identity = meeting::identity(&options.directory)
            .map_err(Error::system(format!("tell the host by {}", options.directory.display())))?;
        let meeting = if options.rank == 0 {
            meeting::lead(options, network, &credentials, patience, door, &identity)?
        } else {
            meeting::join(options, network, &credentials, patience, door, &identity)?
        };
        let hosts = Hosts::of(&meeting.roster);
        Ok(Self { meeting, credentials, patience, hosts })
    }

    /// A number that tells this group from earlier ones.
    pub(crate) fn session(&self) -> u64 {
        self.meeting.roster.session
    }

    /// Connects this rank with those of other hosts.
    pub(crate) fn connect(
        self,
        options: &Options,
        network: &NetworkOptions,
        local_rank: usize,
        control: Arc<Control>,
    ) -> Result<Network, Error> {
        let connections = mesh::weave(options, network, &self.credentials, &self.meeting, self.patience)?;
        let mut lines = Vec::new();
        let mut streams = Vec::new();
        for connection in connections {
            let (line, pair) = connection.map_or((None, None), |connection| {
                (Some(Line::new(connection.control)), Some([connection.collectives, connection.messages]))
            });
            lines.push(line);
            streams.push(pair);
        }
        let peers = Arc::new(Peers::new(lines, local_rank, control));
        let monitor = Monitor::start(Arc::clone(&peers), network.silence)
            .map_err(Error::system("start the thread that listens to other hosts"))?;
        let Meeting { roster, door } = self.meeting;
        Ok(Network {
            rank: options.rank,
            session: roster.session,
            addresses: roster.seats.into_iter().map(|seat| seat.address).collect(),
            deadline: options.deadline,
            silence: network.silence,
            door,
            streams,
            peers,
            _monitor: monitor,
        })
    }
}

/// The connections of this rank with the ranks of other hosts.
#[derive(Debug)]
pub(crate) struct Network {
    rank: usize,
    session: u64,
    addresses: Vec<Option<SocketAddr>>,
    deadline: Duration,
    silence: Duration,
    door: Arc<Door>,
    /// By rank: for collectives, and for messages.
    streams: Vec<Option<[Stream; 2]>>,
    peers: Arc<Peers>,
    _monitor: Monitor,
}

impl Network {
    pub(crate) fn session(&self) -> u64 {
        self.session
    }

    pub(crate) fn world_size(&self) -> usize {
        self.addresses.len()
    }

    pub(crate) fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// Where this rank listens, for groups that come from this one.
    pub(crate) fn door(&self) -> &Arc<Door> {
        &self.door
    }

    /// Where another rank listens.
    pub(crate) fn address(&self, rank: usize) -> Option<SocketAddr> {
        self.addresses[rank]
    }

    /// How long another host may be silent.
    pub(crate) fn silence(&self) -> Duration {
        self.silence
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.peers.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::handshake::Seat;
    use super::*;

    #[test]
    fn hosts_stand_in_the_order_of_their_lowest_ranks() {
        let seats = ["b", "a", "b", "c", "a"].map(|host| Seat {
            host: host.to_uppercase(),
            process: 1,
            identity: host.into(),
            address: None,
        });
        let hosts = Hosts::of(&Roster { session: 1, seats: seats.to_vec() });
        assert_eq!(hosts.ranks, [vec![0, 2], vec![1, 4], vec![3]]);
        assert_eq!(hosts.names[4], "A");
    }
}
