//! Sharded checkpoints: saved in the background, committed as a whole, loaded by any number of ranks.

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
pub use load::{Checkpoint, Damage, Error as LoadError, Request};
pub use model_folder::{
    Error as ModelError, ModelFolder, ModelOptions, WriteError as ModelWriteError, write_model,
};
pub use receipt::ShardReceipt;
pub use retention::Retention;
pub use save::{Error as SaveError, Failure, Place, Save, Saver, SaverOptions, WhenBusy};
pub use tensor::{DataType, Error as TensorError, Shard, Tensor};

/// The errors that those of the crate carry inside.
pub mod errors {
    pub use crate::header::{EncodeError, Error as HeaderError, SameName};
    pub use crate::manifest::{AssembleError, Error as ManifestError, PlaceError};
    pub use crate::model_folder::IndexError;
}
