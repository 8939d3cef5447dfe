//! What runs inside the pods: data-parallel training over the collectives.
//!
//! [`run_words`] is the program `muster-train`: each process is one rank, told who it is by the environment that a
//! PyTorchJob sets. Programs of one's own use the parts: a [`model`] of blocks on a [`tensor`]
//! library, and a [`parallel::Engine`] that trains it on all ranks through [`muster_collectives`].

mod arguments;
mod attendance;
mod checksum;
mod computing;
mod config;
mod data;
mod error;
mod interrupt;
pub mod model;
mod model_file;
mod observe;
mod optimizer;
pub mod parallel;
mod report;
mod sampler;
mod schedule;
mod shape;
pub mod tensor;
mod train;
mod world;

pub use arguments::{Arguments, ModelKind};
pub use error::Error;
pub use optimizer::AdamW;
pub use schedule::{Decay, Schedule};
pub use train::{Outcome, run, run_words};
