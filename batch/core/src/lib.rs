//! Batch jobs as Slurm's users know them, on `batch/v1` Jobs and, over several nodes, on `MPIJob`s: what their options
//! mean, what waits for what, and in which state a job is. Pure.
//!
//! Nothing is kept but what is in the object: its number is a label, and what Kubernetes has no field for is in
//! annotations, see [`names`]. An array is an Indexed Job, a limit of its tasks at a time is `parallelism`, a job that
//! is held or waits for another is suspended, and a time limit is the pod's `activeDeadlineSeconds`. The nodes of an
//! `MPIJob` are its workers; the script runs in its launcher, beside them.

pub mod array;
pub mod board;
pub mod dependency;
pub mod gpus;
pub mod hosts;
pub mod job;
pub mod layout;
pub mod limits;
pub mod names;
pub mod pattern;
pub mod shell;
pub mod state;
pub mod work;

pub use array::Array;
pub use board::Board;
pub use dependency::Dependency;
pub use job::Request;
pub use layout::Layout;
pub use work::{Kind, Work};
