//! What can go wrong between the GPUs of a group.

use std::time::Duration;

use crate::call::Call;
use crate::queue::DeviceError;
use crate::unavailable::Unavailable;
use crate::version::Version;

/// A failed call. A collective that fails by anything but [`Error::InvalidArgument`] and [`Error::NoSplit`] has ended
/// the group on this rank, which stays failed: form a new one to go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no NCCL, or no device.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A GPU that is there cannot be used.
    #[error("the GPU cannot be used: {0}")]
    Gpu(#[from] DeviceError),
    /// NCCL makes no id for a new group.
    #[error("NCCL makes no id for a group: {meaning}{}", detailed(detail))]
    NoUniqueId {
        /// The result.
        meaning: String,
        /// What NCCL says about it.
        detail: String,
    },
    /// The rank that should make the id could not.
    #[error("rank 0 on {host} could not make an id for the group; its own error says why")]
    NoIdFromRankZero {
        /// Its host.
        host: String,
    },
    /// The group of processes failed.
    #[error(transparent)]
    Host(#[from] muster_collectives::Error),
    /// Not all ranks joined in time.
    #[error(
        "rank {rank} on {host}: the {world_size} ranks did not join within {after:?}; one of them did not come, or \
         cannot be reached (NCCL_SOCKET_IFNAME chooses the network, NCCL_DEBUG=INFO tells more)"
    )]
    NotJoined {
        /// This rank.
        rank: usize,
        /// Its host.
        host: String,
        /// How many ranks the group has.
        world_size: usize,
        /// How long this rank waited.
        after: Duration,
    },
    /// A call did not end in time. NCCL does not tell for whom it waits.
    #[error(
        "rank {rank} on {host}: {call} did not end within {after:?}; another rank did not come to it, makes another \
         call, or is gone"
    )]
    Timeout {
        /// This rank.
        rank: usize,
        /// Its host.
        host: String,
        /// The call.
        call: Call,
        /// How long this rank waited.
        after: Duration,
    },
    /// The group was ended on purpose, from this process.
    #[error("rank {rank} on {host}: the group was aborted: {cause}")]
    Aborted {
        /// This rank.
        rank: usize,
        /// Its host.
        host: String,
        /// Why, as the one who ended it said: the loss of a rank names it.
        cause: String,
    },
    /// NCCL reports an error.
    #[error("rank {rank} on {host}: {call}: {meaning}{}", detailed(detail))]
    Nccl {
        /// This rank.
        rank: usize,
        /// Its host.
        host: String,
        /// The call in which it showed; the cause may lie before.
        call: String,
        /// The result, a `ncclResult_t`.
        code: i32,
        /// The same in words.
        meaning: String,
        /// What NCCL says about it.
        detail: String,
    },
    /// The device reports an error.
    #[error("rank {rank} on {host}: {call}: {source}")]
    Device {
        /// This rank.
        rank: usize,
        /// Its host.
        host: String,
        /// The call in which it showed; the cause may lie before.
        call: String,
        /// What the device says.
        source: DeviceError,
    },
    /// The group had failed before.
    #[error("rank {rank} on {host}: the group has failed before: {cause}")]
    Failed {
        /// This rank.
        rank: usize,
        /// Its host.
        host: String,
        /// The first error.
        cause: String,
    },
    /// The communicator was closed.
    #[error("rank {rank} on {host}: the communicator was closed")]
    Closed {
        /// This rank.
        rank: usize,
        /// Its host.
        host: String,
    },
    /// The version of NCCL has no sub-groups.
    #[error(
        "NCCL {version} cannot split a group, 2.18 can; join a group of its own instead, with an id of its own"
    )]
    NoSplit {
        /// What was loaded.
        version: Version,
    },
    /// An argument is unusable.
    #[error("{0}")]
    InvalidArgument(String),
    /// The operating system refuses a thread.
    #[error("cannot start a thread that watches the other ranks: {0}")]
    NoThread(std::io::Error),
}

fn detailed(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}
