//! How groups are formed.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use cudarc::nccl::sys::{ncclComm, ncclComm_t};
use muster_collectives::Communicator as Host;

use super::Communicator;
use crate::aborter::Aborter;
use crate::config::Config;
use crate::error::Error;
use crate::group::Group;
use crate::library::Nccl;
use crate::options::Options;
use crate::queue::Queue;
use crate::status::is_accepted;
use crate::unique_id::UniqueId;

/// `NCCL_SPLIT_NOCOLOR`.
const NO_COLOUR: c_int = -1;

/// A rank on its way into a group.
#[derive(Debug)]
pub struct Joining<Q: Queue> {
    communicator: Communicator<Q>,
}

impl<Q: Queue> Joining<Q> {
    /// Begins to join the group of this id. Returns at once.
    pub fn begin(nccl: &Nccl, id: UniqueId, queue: &Q, options: &Options) -> Result<Self, Error> {
        let Options { rank, world_size, host, .. } = options;
        let (Ok(own), Ok(ranks)) = (c_int::try_from(*rank), c_int::try_from(*world_size)) else {
            return Err(Error::InvalidArgument(format!("a group of {world_size} ranks is too large")));
        };
        if own >= ranks {
            let message = format!("rank {rank} does not exist in a group of {world_size}");
            return Err(Error::InvalidArgument(message));
        }
        let call = || "join".to_owned();
        queue.bind().map_err(|source| Error::Device {
            rank: *rank,
            host: host.clone(),
            call: call(),
            source,
        })?;
        let mut communicator: ncclComm_t = null_mut();
        let mut config = Config::nonblocking();
        // SAFETY: the library writes the handle before it returns, and copies the configuration.
        let code = unsafe {
            (nccl.functions().init_rank)(&raw mut communicator, ranks, id.raw(), own, &raw mut config)
        };
        if !is_accepted(code) || communicator.is_null() {
            // SAFETY: no communicator.
            let detail = unsafe { nccl.last_error(null_mut()) };
            let meaning = nccl.describe(code);
            return Err(Error::Nccl { rank: *rank, host: host.clone(), call: call(), code, meaning, detail });
        }
        let group = Group::new(nccl, queue, options, communicator);
        Ok(Self { communicator: Communicator { group, calls: 0 } })
    }

    /// A way to break the joining off.
    pub fn aborter(&self) -> Aborter {
        self.communicator.aborter()
    }

    /// Waits until all ranks have joined.
    pub fn finish(self) -> Result<Communicator<Q>, Error> {
        let group = &self.communicator.group;
        let Options { rank, world_size, host, join_deadline, .. } = group.options.clone();
        if group.settle(&"join", join_deadline)?.is_none() {
            let error = Error::NotJoined { rank, host, world_size, after: join_deadline };
            return Err(group.break_with(error));
        }
        tracing::debug!(rank, world_size, "joined through NCCL");
        Ok(self.communicator)
    }
}

impl<Q: Queue> Communicator<Q> {
    /// Joins the group of this id, and waits for all of its ranks.
    pub fn join(nccl: &Nccl, id: UniqueId, queue: &Q, options: &Options) -> Result<Self, Error> {
        Joining::begin(nccl, id, queue, options)?.finish()
    }

    /// Joins a group of the same ranks as a group of processes, which carries the id; rank, world size and the name of
    /// the host come from that one.
    pub fn join_through(nccl: &Nccl, host: &mut Host, queue: &Q, options: &Options) -> Result<Self, Error> {
        let id = UniqueId::share(nccl, host)?;
        let (rank, world_size) = (host.rank(), host.world_size());
        let name = host.hosts().get(rank).unwrap_or(&options.host).clone();
        let options = Options { rank, world_size, host: name, ..options.clone() };
        Self::join(nccl, id, queue, &options)
    }

    /// Forms a group of the ranks that pass the same `colour`, in the order of their keys, of their ranks where keys
    /// are equal. Every rank of this group must call it; one that passes no colour gets no group. Both groups can be
    /// used side by side, on the same stream, and each needs its own [`Aborter`]. NCCL can do this from 2.18 on.
    pub fn split(&mut self, colour: Option<u32>, key: i32) -> Result<Option<Self>, Error> {
        let group = &self.group;
        let Some(split) = group.nccl.functions().split else {
            return Err(Error::NoSplit { version: group.nccl.version() });
        };
        let colour = match colour {
            None => NO_COLOUR,
            Some(colour) => c_int::try_from(colour)
                .map_err(|_| Error::InvalidArgument(format!("colour {colour} exceeds {}", c_int::MAX)))?,
        };
        let Options { rank, world_size, host, join_deadline, .. } = group.options.clone();
        let call = format!("split (colour {colour}, key {key})");
        // The library writes the handle when the split has ended, which may be after this call has given up: then the
        // place for it is given up too.
        let place: &'static AtomicPtr<ncclComm> = Box::leak(Box::new(AtomicPtr::new(null_mut())));
        let mut config = Config::nonblocking();
        // SAFETY: the handle is live, the place lives for good, and the configuration is copied.
        group.call(&call, |_, communicator| unsafe {
            split(communicator, colour, key, place.as_ptr(), &raw mut config)
        })?;
        if group.settle(&call, join_deadline)?.is_none() {
            let error = Error::NotJoined { rank, host, world_size, after: join_deadline };
            return Err(group.break_with(error));
        }
        let child = place.load(Ordering::Acquire);
        // SAFETY: made from a box above, and the library has written to it for the last time.
        drop(unsafe { Box::from_raw(std::ptr::from_ref(place).cast_mut()) });
        self.calls += 1;
        if child.is_null() {
            return Ok(None);
        }
        self.adopt(child, &call).map(Some)
    }

    /// Waits for a part of this group to be complete, and asks it who this rank is.
    fn adopt(&self, child: ncclComm_t, call: &str) -> Result<Self, Error> {
        let parent = &self.group;
        let mut group = Group::new(&parent.nccl, &parent.queue, &parent.options, child);
        let Options { rank, host, world_size, join_deadline, .. } = parent.options.clone();
        if group.settle(&call, join_deadline)?.is_none() {
            return Err(group.break_with(Error::NotJoined { rank, host, world_size, after: join_deadline }));
        }
        let (mut own, mut ranks) = (0, 0);
        // SAFETY: the handle is live; both write one number.
        group.call(&call, |functions, communicator| unsafe {
            (functions.user_rank)(communicator, &raw mut own)
        })?;
        // SAFETY: as above.
        group.call(&call, |functions, communicator| unsafe {
            (functions.count)(communicator, &raw mut ranks)
        })?;
        // Nobody else has the group yet.
        if let Some(group) = Arc::get_mut(&mut group) {
            group.options.rank = own as usize;
            group.options.world_size = ranks as usize;
        }
        Ok(Self { group, calls: 0 })
    }
}
