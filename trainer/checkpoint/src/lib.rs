//! Sharded checkpoints: saved in the background, committed as a whole, loaded by any number of ranks.
//!
//! Each rank describes what it holds as a [`Shard`]: ranges of named tensors, and their bytes. A [`Saver`] copies them,
//! which is all that training waits for, and writes them in a thread of its own. The ranks send their [`ShardReceipt`]s to
//! rank 0 by whatever connects them, and rank 0 [commits](Checkpoints::commit) the step together with the training
//! state. A [`Checkpoint`] is read in any ranges, whatever ranges it was saved in.
//!
//! ```
//! use std::time::Duration;
//!
//! use muster_checkpoint::{Checkpoints, DataType, Place, SaverOptions, Shard, Tensor};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let url = format!("file://{}", folder.path().display());
//! let checkpoints = Checkpoints::open(&url)?; // or "s3://bucket/runs/one"
//! checkpoints.clean()?; // at the start, one rank removes what a crash left
//!
//! // Two ranks hold three elements of a matrix each; here both in one process.
//! let weight = Tensor::new("weight", DataType::F32, [2, 3])?;
//! let values: Vec<u8> = [1_f32, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|value| value.to_le_bytes()).collect();
//! let mut receipts = Vec::new();
//! for rank in 0..2 {
//!     let mut saver = checkpoints.saver(Place { rank, world_size: 2 }, SaverOptions::default())?;
//!     let (first, last) = (3 * rank, 3 * rank + 3);
//!     let mut shard = Shard::new();
//!     shard.add(&weight, first as u64..last as u64, &values[4 * first..4 * last])?;
//!     let save = saver.begin(100, &shard)?;
//!     // Training goes on, and looks in at times with `save.poll()`.
//!     receipts.push(save.wait(Duration::from_mins(5))?);
//! }
//! checkpoints.commit(&receipts, serde_json::json!({ "epoch": 1, "learning_rate": 1e-4 }))?;
//!
//! // Four ranks go on; the second of them holds elements 2 and 3.
//! let checkpoint = checkpoints.latest()?.ok_or("there is no checkpoint")?;
//! assert_eq!((checkpoint.step(), &checkpoint.state()["epoch"]), (100, &1.into()));
//! assert_eq!(checkpoint.read("weight", 2..4)?, [3_f32.to_le_bytes(), 4_f32.to_le_bytes()].concat());
//! # Ok(())
//! # }
//! ```
//!
//! # What lies where
//!
//! ```text
//! step-00000000000000000100/
//!   shard-00000-of-00002-9c7be0f0a1d2e3f4.safetensors    one of each rank
//!   shard-00001-of-00002-05a4b3c2d1e0f9e8.safetensors
//!   manifest.json                                        last: with it the checkpoint exists
//! ```
//!
//! A shard is a safetensors file. A whole tensor has its own name in it, and elements 3 to 5 of `weight` are
//! `weight[3..6]`. The manifest says which elements of which tensor lie where, and holds the training state and
//! checksums: BLAKE3 of every file, as `b3sum` prints it, and of each of its chunks, by which partial reads are checked.
//! It ends with its own.
//!
//! # What holds
//!
//! * Whatever call is cut short, by a kill or a loss of power, what was committed stays loadable, and what was not is
//!   garbage that [`clean`](Checkpoints::clean) removes. A step that is saved again is the old one until it is the new one.
//! * A failed save is told: to who waits for it, else to the next save, else when the saver [ends](Saver::finish).
//! * No byte is loaded that is not the one that was saved. Damage is an error that names the file, the chunk and a tensor
//!   in it; [`latest_intact`](Checkpoints::latest_intact) finds the newest checkpoint without any.
//! * A removal begins with the manifest, and the newest checkpoint is not [removed](Checkpoints::retain).
//!
//! Calls block, and a save holds one copy of its shard. Nothing here knows a tensor library or a communicator.

mod checkpoints;
mod checksum;
#[cfg(test)]
mod crashes;
mod header;
mod load;
mod manifest;
mod model_folder;
mod names;
mod receipt;
mod retention;
mod save;
pub mod store;
mod tensor;

pub use checkpoints::{Checkpoints, Error, Intact, NotIntact};
pub use checksum::{Checksum, ChunkSize};
pub use load::{Checkpoint, Error as LoadError, Request};
pub use model_folder::{
    Error as ModelError, ModelFolder, ModelOptions, WriteError as ModelWriteError, write_model,
};
pub use receipt::ShardReceipt;
pub use retention::Retention;
pub use save::{Error as SaveError, Place, Save, Saver, SaverOptions, WhenBusy};
pub use tensor::{DataType, Error as TensorError, Shard, Tensor};

/// What the errors of the crate carry inside.
pub mod errors {
    pub use crate::header::{EncodeError, Error as HeaderError, SameName};
    pub use crate::load::Damage;
    pub use crate::manifest::{AssembleError, Error as ManifestError, PlaceError};
    pub use crate::model_folder::IndexError;
    pub use crate::save::Failure;
}
