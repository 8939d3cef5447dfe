//! Muster's collectives as a backend of `torch.distributed`.
//!
//! A call of the Python package `muster_torch` is a [`Request`] on [`Tensor`]s, which are memory that torch owns. A
//! [`Group`] makes requests in the order in which they were handed in, on a thread of its own or, where nothing waits
//! and the caller waits anyway, on the caller's; a [`Ticket`] tells how each ended. Nothing of this knows Python: the
//! feature `python` adds the module that does.

mod element_type;
mod failure;
mod group;
#[cfg(feature = "python")]
mod python;
mod request;
mod tensor;
mod ticket;

pub use element_type::{ElementType, Unsupported, reduction};
pub use failure::{Failure, Kind};
pub use group::{Group, Keep};
pub use request::Request;
pub use tensor::{InvalidTensor, Tensor};
pub use ticket::{Promise, Ticket};
