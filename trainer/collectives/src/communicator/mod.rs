//! The typed face of a group: checks arguments, numbers the calls and counts the traffic.

mod arguments;
mod movements;
mod reductions;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::aborter::Aborter;
use crate::arena::RegisteredBuffer;
use crate::call::{Call, Operation, Placement};
use crate::call_off::CallOff;
use crate::element::{Element, Reduction};
use crate::error::Error;
use crate::hierarchy::Hierarchy;
use crate::network::Door;
use crate::options::Options;

/// A rank's handle on its group. All ranks must make the same calls in the same order.
///
/// Dropping it leaves the group; ranks that still wait for this one then get [`Error::PeerLost`].
#[derive(Debug)]
pub struct Communicator {
    pub(crate) transport: Hierarchy,
    pub(crate) options: Options,
    pub(crate) calls: u64,
    traffic: Traffic,
}

/// What a communicator has moved so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Calls that ended well, messages included.
    pub calls: u64,
    /// Bytes this rank passed into them.
    pub bytes: u64,
    /// Time spent in them, waiting for slower ranks included.
    pub time: Duration,
}

impl Communicator {
    /// Forms the group: returns on all ranks once every rank has mapped all memory of its host and is connected with
    /// every rank of the others.
    pub fn connect(options: &Options) -> Result<Self, Error> {
        Self::connect_at(options, None)
    }

    /// As [`Self::connect`]; `door` is where this rank listens already, if it does.
    pub(crate) fn connect_at(options: &Options, door: Option<Arc<Door>>) -> Result<Self, Error> {
        options.validate()?;
        let formed = Self::form(options, door);
        let reason = || options.call_off.as_ref().and_then(CallOff::reason);
        formed.map_err(|error| match error.is_absence().then(reason).flatten() {
            // Whom this rank missed is only what follows from that.
            Some(reason) => Error::CalledOff { rank: options.rank, reason },
            None => error,
        })
    }

    fn form(options: &Options, door: Option<Arc<Door>>) -> Result<Self, Error> {
        let transport = Hierarchy::join(options, door)?;
        // Groups that come from this one have ranks that are there.
        let own = Options { call_off: None, ..options.clone() };
        let mut communicator = Self { transport, options: own, calls: 0, traffic: Traffic::default() };
        communicator.barrier()?;
        tracing::debug!(
            rank = options.rank,
            world_size = options.world_size,
            hosts = communicator.transport.host_count(),
            group = options.group,
            "joined"
        );
        communicator.traffic = Traffic::default();
        Ok(communicator)
    }

    /// This process's rank.
    pub fn rank(&self) -> usize {
        self.transport.rank()
    }

    /// The number of ranks.
    pub fn world_size(&self) -> usize {
        self.transport.world_size()
    }

    /// How the ranks' hosts call themselves, in rank order.
    pub fn hosts(&self) -> &[String] {
        self.transport.hosts()
    }

    /// A number, equal on all ranks, that tells this group from every earlier one.
    pub fn session(&self) -> u64 {
        self.transport.session()
    }

    /// What has been moved so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// A way to end the group from another thread.
    pub fn aborter(&self) -> Aborter {
        self.transport.aborter()
    }

    /// A zeroed buffer in shared memory. No collective: ranks may allocate in any order and at any time.
    pub fn allocate<T: Element>(&self, count: usize) -> Result<RegisteredBuffer<T>, Error> {
        self.transport.allocate(count)
    }

    /// Returns once every rank has called it.
    pub fn barrier(&mut self) -> Result<(), Error> {
        let call = Call { operation: Operation::Barrier, ..self.blank() };
        self.run(0, |transport| transport.barrier(call))
    }

    fn blank(&self) -> Call {
        Call {
            index: self.calls,
            operation: Operation::Barrier,
            data_type: None,
            count: 0,
            reduction: None,
            root: None,
            placement: Placement::Staged,
        }
    }

    fn moving<T: Element>(&self, operation: Operation, count: usize) -> Call {
        Call { operation, data_type: Some(T::DATA_TYPE), count, ..self.blank() }
    }

    fn reducing<T: Element>(
        &self,
        operation: Operation,
        count: usize,
        reduction: Reduction,
    ) -> Result<Call, Error> {
        if reduction.applies_to(T::DATA_TYPE) {
            return Ok(Call { reduction: Some(reduction), ..self.moving::<T>(operation, count) });
        }
        let message = format!("{} does not reduce {} elements", reduction.name(), T::DATA_TYPE.name());
        Err(Error::InvalidArgument(message))
    }

    /// Makes a call of all ranks.
    fn run(
        &mut self,
        bytes: usize,
        work: impl FnOnce(&mut Hierarchy) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.time(bytes, work)?;
        self.calls += 1;
        Ok(())
    }

    fn time(
        &mut self,
        bytes: usize,
        work: impl FnOnce(&mut Hierarchy) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let began = Instant::now();
        work(&mut self.transport).inspect_err(|error| self.transport.tell(error))?;
        self.traffic.calls += 1;
        self.traffic.bytes += bytes as u64;
        self.traffic.time += began.elapsed();
        Ok(())
    }
}
