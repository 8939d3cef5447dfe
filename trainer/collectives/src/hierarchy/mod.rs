//! A group on one host or several. Inside a host ranks share memory; between hosts data goes over TCP.
//!
//! # How data crosses
//! Every rank is connected with every rank of another host. What a host sends of a reduction is reduced among its
//! ranks first, and what it receives for all of its ranks it receives once: the work is spread over its ranks, each of
//! which carries a share of it. Hosts may hold different numbers of ranks; as many ranks of each carry as the smallest
//! host has.
//!
//! # The order of a reduction
//! The contributions of a host's ranks are combined in rank order, and what comes of that in the order of the hosts,
//! which stand in the order of their lowest ranks: of ranks 0 and 1 on one host and 2 and 3 on another a sum is
//! `(x0 + x1) + (x2 + x3)`. It is the same on every rank, in every run, for every size and every collective, but may
//! differ in the last bits from that of the same ranks on other hosts.
//!
//! Half types accumulate in `f32` and are rounded once, so what hosts with several ranks send of a sum is `f32`; where
//! every host has one rank, its own values travel, as they are no less exact and half as long. Likewise small integers
//! travel in 32 bits where an average needs all of them. Results are sent in the type of the elements.
//!
//! # Failures
//! What ends the group ends it on every host, and every rank names the same culprit unless two are to blame at once. A
//! rank that is a little behind may be told in a call that the others have just ended.

mod gather;
mod messages;
mod pairwise;
mod rebuild;
mod reduce;
mod reduce_scatter;
mod share;
mod work;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::aborter::Aborter;
use crate::arena::RegisteredBuffer;
use crate::call::Call;
use crate::element::Element;
use crate::error::Error;
use crate::membership::Membership;
use crate::network::{Acquaintance, Content, Door, Ended, Incoming, Lane, Network, Outgoing};
use crate::options::Options;
use crate::report::Report;
use crate::shared_memory::SharedMemory;

/// A joined group.
#[derive(Debug)]
pub(crate) struct Hierarchy {
    /// The ranks of this host.
    local: SharedMemory,
    /// Those of the others, if there are any.
    remote: Option<Remote>,
}

/// The hosts of a group, and the connections with them.
#[derive(Debug)]
struct Remote {
    rank: usize,
    /// The ranks of each host, ascending; hosts stand in the order of their lowest ranks.
    hosts: Vec<Vec<usize>>,
    own_host: usize,
    network: Network,
    /// By rank, for those of other hosts.
    messages: Vec<messages::Progress>,
}

impl Hierarchy {
    /// Forms the group. `door` is where this rank listens already, if it belongs to another group of several hosts.
    pub(crate) fn join(options: &Options, door: Option<Arc<Door>>) -> Result<Self, Error> {
        let Some(network) = &options.network else {
            return Ok(Self { local: SharedMemory::join(options)?, remote: None });
        };
        let acquaintance = Acquaintance::make(options, network, door)?;
        let hosts = acquaintance.hosts.ranks.clone();
        let own_host = hosts.iter().position(|ranks| ranks.contains(&options.rank)).unwrap_or_default();
        let members = hosts[own_host].clone();
        let local_options = Options {
            // The session makes the name unique, so it need not be as long as the group's.
            group: format!("{:.64}-{:x}", options.group, acquaintance.session()),
            rank: members.iter().position(|rank| *rank == options.rank).unwrap_or_default(),
            world_size: members.len(),
            ..options.clone()
        };
        let mut local = SharedMemory::join(&local_options)?;
        if hosts.len() == 1 {
            return Ok(Self { local, remote: None });
        }
        let membership = Membership { members, hosts: acquaintance.hosts.names.clone() };
        // A rank that waits for another host says whom it misses before the ranks of its own host miss it.
        local.become_part(membership, network.silence);
        let control = Arc::clone(local.control());
        let network = acquaintance.connect(options, network, local.rank(), control)?;
        let messages = vec![messages::Progress::default(); options.world_size];
        Ok(Self { local, remote: Some(Remote { rank: options.rank, hosts, own_host, network, messages }) })
    }

    pub(crate) fn rank(&self) -> usize {
        self.remote.as_ref().map_or(self.local.rank(), |remote| remote.rank)
    }

    pub(crate) fn world_size(&self) -> usize {
        self.hosts().len()
    }

    /// How the host of each rank calls itself.
    pub(crate) fn hosts(&self) -> &[String] {
        &self.local.membership().hosts
    }

    /// The number of hosts.
    pub(crate) fn host_count(&self) -> usize {
        self.remote.as_ref().map_or(1, |remote| remote.hosts.len())
    }

    /// The ranks of other hosts with which this rank shares an all-reduce, and the number of shares; none on one host.
    pub(crate) fn carriers(&self) -> Option<(Vec<usize>, usize)> {
        let remote = self.remote.as_ref()?;
        let (place, carriers) = (self.local.rank(), remote.carriers());
        let peers = remote.other_hosts().filter(|_| place < carriers);
        Some((peers.map(|host| remote.hosts[host][place]).collect(), carriers))
    }

    /// Where a rank of another host listens.
    pub(crate) fn address(&self, rank: usize) -> Option<SocketAddr> {
        self.remote.as_ref()?.network.address(rank)
    }

    pub(crate) fn session(&self) -> u64 {
        self.remote.as_ref().map_or_else(|| self.local.session(), |remote| remote.network.session())
    }

    pub(crate) fn allocate<T: Element>(&self, count: usize) -> Result<RegisteredBuffer<T>, Error> {
        self.local.allocate(count)
    }

    pub(crate) fn aborter(&self) -> Aborter {
        let peers = self.remote.as_ref().map(|remote| Arc::clone(remote.network.peers()));
        Aborter::new(Arc::clone(self.local.control()), self.local.rank(), self.rank(), peers)
    }

    /// Tells the other hosts the error with which a call of this rank ended.
    pub(crate) fn tell(&self, error: &Error) {
        if let Some(remote) = &self.remote {
            remote.network.peers().tell(error);
        }
    }

    pub(crate) fn barrier(&mut self, call: Call) -> Result<(), Error> {
        match &self.remote {
            None => self.local.barrier(call),
            Some(remote) => remote.enter(&mut self.local, call),
        }
    }
}

impl Remote {
    fn world_size(&self) -> usize {
        self.network.world_size()
    }

    fn own_ranks(&self) -> &[usize] {
        &self.hosts[self.own_host]
    }

    /// The indices of the hosts other than this one.
    fn other_hosts(&self) -> impl Iterator<Item = usize> + use<'_> {
        (0..self.hosts.len()).filter(|host| *host != self.own_host)
    }

    /// The ranks of other hosts, ascending.
    fn remote_ranks(&self) -> impl Iterator<Item = usize> + use<'_> {
        (0..self.world_size()).filter(|rank| !self.own_ranks().contains(rank))
    }

    /// The host of a rank, and its place there.
    fn place_of(&self, rank: usize) -> (usize, usize) {
        let place = |ranks: &Vec<usize>| ranks.iter().position(|member| *member == rank);
        let mut hosts = self.hosts.iter().enumerate();
        hosts.find_map(|(host, ranks)| place(ranks).map(|place| (host, place))).unwrap_or_default()
    }

    /// The rank of `host` that receives for it what the rank at some place of another host sends to all of it, and
    /// that sends on its behalf what goes to that rank alone.
    fn partner(&self, host: usize, place: usize) -> usize {
        let ranks = &self.hosts[host];
        ranks[place % ranks.len()]
    }

    /// The ranks of other hosts whose partner on this host is the rank at `place`.
    fn partners_of(&self, place: usize) -> impl Iterator<Item = usize> + use<'_> {
        let count = self.own_ranks().len();
        self.remote_ranks().filter(move |rank| self.place_of(*rank).1 % count == place)
    }

    /// Makes transfers with other hosts, while no rank of this host fails.
    fn exchange(
        &self,
        local: &SharedMemory,
        call: Call,
        outgoing: &mut [Outgoing<'_>],
        incoming: &mut [Incoming<'_>],
    ) -> Result<(), Error> {
        self.exchange_on(Lane::Collectives, local, call, outgoing, incoming)
    }

    fn exchange_on(
        &self,
        lane: Lane,
        local: &SharedMemory,
        call: Call,
        outgoing: &mut [Outgoing<'_>],
        incoming: &mut [Incoming<'_>],
    ) -> Result<(), Error> {
        match self.network.exchange(local.control(), local.rank(), call, lane, outgoing, incoming) {
            Ok(Ended::Well) => Ok(()),
            Ok(Ended::Failed) => local.check_failure(call),
            Err(error) => Err(self.fail(local, call, error)),
        }
    }

    /// Ends the group with an error of this rank, unless it has ended, and gives the error that counts.
    fn fail(&self, local: &SharedMemory, call: Call, error: Error) -> Error {
        if let Some(report) = Report::of(&error) {
            self.network.peers().fail(report);
        }
        local.check_failure(call).err().unwrap_or(error)
    }

    /// Waits until every rank of every host has made this call.
    fn enter(&self, local: &mut SharedMemory, call: Call) -> Result<(), Error> {
        local.enter(call, 0)?;
        if local.rank() == 0 {
            self.enter_leaders(local, call)?;
        }
        local.conclude(call)
    }

    /// Waits until the first rank of every other host has made this call.
    fn enter_leaders(&self, local: &SharedMemory, call: Call) -> Result<(), Error> {
        let leaders: Vec<usize> = self.other_hosts().map(|host| self.hosts[host][0]).collect();
        let outgoing = |leader| self.network.outgoing::<u8>(leader, call, Content::Announcement, &[]);
        let incoming = |leader| Incoming::new::<u8>(leader, Content::Announcement, &mut []);
        let mut outgoing: Vec<_> = leaders.iter().copied().map(outgoing).collect();
        let mut incoming: Vec<_> = leaders.iter().copied().map(incoming).collect();
        self.exchange(local, call, &mut outgoing, &mut incoming)
    }
}
