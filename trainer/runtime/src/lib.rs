//! What runs inside the pods: data-parallel training over the collectives.
//!
//! [`run`] is the program `muster-train`: each process is one rank, told who it is by the environment that a
//! PyTorchJob sets. The ranks share their gradients through [`muster_collectives`]; the tensor library is named
//! in one module only.

mod arguments;
mod backend;
mod data;
mod data_parallel;
mod error;
mod interrupt;
mod model_file;
mod network;
mod optimizer;
mod report;
mod sampler;
mod train;
mod world;

pub use arguments::{Arguments, ModelKind};
pub use error::Error;
pub use train::{Outcome, run};
