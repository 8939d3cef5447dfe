//! How the ranks of a new group know that they mean the same one.
#![allow(unsafe_code)]

use std::fmt;

use cudarc::nccl::sys::ncclUniqueId;
use muster_collectives::Communicator as Host;

use crate::error::Error;
use crate::library::Nccl;

/// Bytes of an id.
const BYTES: usize = 128;

/// What all ranks of a group pass when they join it: made by one of them, which others reach at the address inside.
/// Good for one group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UniqueId([u8; BYTES]);

impl UniqueId {
    /// A new id. NCCL listens at an address of this process from now on.
    pub fn new(nccl: &Nccl) -> Result<Self, Error> {
        let mut id = ncclUniqueId { internal: [0; BYTES] };
        // SAFETY: it fills the structure, which is NCCL's.
        let code = unsafe { (nccl.functions().get_unique_id)(&raw mut id) };
        if code != crate::status::SUCCESS {
            // SAFETY: no communicator.
            let detail = unsafe { nccl.last_error(std::ptr::null_mut()) };
            return Err(Error::NoUniqueId { meaning: nccl.describe(code), detail });
        }
        Ok(Self(id.internal.map(|byte| byte as u8)))
    }

    /// Makes an id on rank 0 of a group of processes and gives it to all of them. Every rank must call it. When
    /// rank 0 cannot make one, every rank gets an error.
    pub fn share(nccl: &Nccl, host: &mut Host) -> Result<Self, Error> {
        let made = if host.rank() == 0 { Some(Self::new(nccl)) } else { None };
        let mut message = [0_u8; BYTES + 1];
        if let Some(Ok(id)) = &made {
            message[0] = 1;
            message[1..].copy_from_slice(&id.0);
        }
        host.broadcast(&mut message, 0)?;
        if let Some(Err(error)) = made {
            return Err(error);
        }
        match message {
            [1, id @ ..] => Ok(Self(id)),
            _ => Err(Error::NoIdFromRankZero { host: host.hosts().first().cloned().unwrap_or_default() }),
        }
    }

    /// The id as other ways than [`Self::share`] carry it.
    pub fn to_bytes(self) -> [u8; BYTES] {
        self.0
    }

    /// The id that another rank has made.
    pub fn from_bytes(bytes: [u8; BYTES]) -> Self {
        Self(bytes)
    }

    pub(crate) fn raw(self) -> ncclUniqueId {
        ncclUniqueId { internal: self.0.map(|byte| byte as _) }
    }
}

impl fmt::Debug for UniqueId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever knows it may join the group.
        formatter.write_str("UniqueId(…)")
    }
}
