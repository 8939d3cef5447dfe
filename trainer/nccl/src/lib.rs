//! Collectives between NVIDIA GPUs through NCCL, loaded at run time.
//!
//! Nothing here needs CUDA or NCCL to build. [`detect`] says what this machine has, and where something is missing,
//! what: no driver, no device, no NCCL, another version. NCCL is looked for where the PyPI wheel puts it too
//! ([`Search`]).
//!
//! ```no_run
//! use muster_collectives::{Communicator as Host, Options as HostOptions, Reduction};
//! use muster_nccl::{Communicator, Cuda, Nccl, Options};
//!
//! # fn main() -> Result<(), muster_nccl::Error> {
//! # let (rank, world_size) = (0, 2);
//! // The processes find each other without GPUs, and carry the id of the group.
//! let mut host = Host::connect(&HostOptions::new("/dev/shm", "example", rank, world_size))?;
//! let nccl = Nccl::load()?;
//! let gpu = Cuda::open(rank)?;
//! let mut group = Communicator::join_through(&nccl, &mut host, &gpu, &Options::new(rank, world_size))?;
//! let mut gradients = group.upload(&[1.0_f32; 1024])?;
//! let reducing = group.all_reduce(&mut gradients, Reduction::Average)?;
//! // The GPU is at it; another thread may call `group.aborter().abort("enough")`.
//! reducing.wait()?;
//! assert_eq!(group.download(&gradients)?[0], 1.0);
//! group.close()
//! # }
//! ```
//!
//! * Every wait has a deadline. Communicators do not block: their calls return at once, and the state of NCCL and of the
//!   stream is looked at until the one or the other has an answer.
//! * An [`Aborter`] ends the waits of this rank from any thread. [`Watch`] does it when a rank dies, of which NCCL by
//!   itself learns late or never, and names the rank.
//! * After an error a communicator stays failed; whoever goes on forms a new one.
//! * Memory is kept until no work uses it, also where a call fails.
//! * [`Queue`] is all that is needed of a device beside NCCL. [`Cuda`] is the one for GPUs; the tests have one in the
//!   host's memory, together with a library that stands for NCCL.
//!
//! `examples/gpu_check.rs` makes every call on real GPUs and compares the results; the tests run it on libraries that stand
//! for NCCL and for the driver.

mod aborter;
pub mod benchmark;
mod buffer;
mod call;
mod communicator;
mod config;
mod cuda;
mod driver;
mod error;
mod group;
mod library;
mod options;
mod pending;
mod queue;
mod search;
mod status;
mod unavailable;
mod unique_id;
mod version;
mod watch;

pub use aborter::Aborter;
pub use buffer::DeviceBuffer;
pub use call::{Call, Peer};
pub use communicator::{Communicator, Joining};
pub use cuda::Cuda;
pub use driver::Driver;
pub use error::Error;
pub use library::Nccl;
pub use options::Options;
pub use pending::Pending;
pub use queue::{DeviceError, Queue};
pub use search::Search;
pub use unavailable::Unavailable;
pub use unique_id::UniqueId;
pub use version::Version;
pub use watch::Watch;

/// Whether collectives between GPUs can work here: a driver that sees a device, and NCCL. Never panics.
pub fn detect() -> Result<(Driver, Nccl), Unavailable> {
    Ok((Driver::detect()?, Nccl::load()?))
}
