//! Collective communication over shared memory and TCP; knows no tensor library.
//!
//! The ranks of one host find each other through a directory ([`Options`]), map each other's memory and then
//! call the same collectives in the same order on a [`Communicator`]. Data in a [`RegisteredBuffer`] is reduced
//! where it lies; other slices are copied through the arena, or read by the other ranks' processes where they are large
//! and the system allows it. Ranks on several hosts find each other at the address of
//! rank 0 ([`NetworkOptions`]) and make the same calls; those that see the same directory still share memory.
//!
//! * Reductions run in rank order inside a host and in the order of the hosts' lowest ranks across hosts: results are
//!   bit-identical on every rank and in every run.
//! * Every wait has a deadline. A peer that dies, stops or calls something else ends the group on all ranks with
//!   an [`Error`] that names it; a failed communicator stays failed, and a new one can be formed.
//! * While a group forms, a rank that dies may be started again and take its place. If somebody is missing when the
//!   deadline for joining ends, all who came are told who, and which of them had come and died.
//! * Nothing has a name that outlives the processes, except the rendezvous socket, which is removed once the
//!   group is complete and replaced by the next group if rank 0 was killed before.
//! * Both sides of a connection between hosts prove that they know the group's [`Token`]. With [`TlsFiles`] they also
//!   show certificates, and everything they send is encrypted.

mod aborter;
mod arena;
mod background;
pub mod benchmark;
mod call;
mod call_off;
mod channel;
mod codec;
mod communicator;
mod control;
mod element;
mod error;
mod half_precision;
mod hierarchy;
mod kernels;
mod large_pages;
mod membership;
mod memory;
mod network;
mod options;
mod peer_memory;
mod rendezvous;
mod report;
mod shared_memory;
mod signal;
mod subgroup;
mod watcher;

pub use aborter::Aborter;
pub use arena::RegisteredBuffer;
pub use background::{Background, Pending};
pub use call::{Call, Operation, Placement};
pub use call_off::CallOff;
pub use communicator::{Communicator, Traffic};
pub use element::{DataType, Element, Reduction};
pub use error::{Error, HungUp, LossCause};
pub use half::{bf16, f16};
pub use network::CredentialsError;
pub use options::{NetworkOptions, Options, TlsFiles, Token};
