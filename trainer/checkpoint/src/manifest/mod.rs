//! The manifest: which elements of which tensor lie where, and the training state. A checkpoint exists when it does.

mod assemble;
mod coding;
mod place;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::assemble::Error as AssembleError;
pub(crate) use self::assemble::assemble;
pub(crate) use self::coding::LONGEST;
pub use self::place::Error as PlaceError;
use crate::receipt::SavedShard;
use crate::tensor::Tensor;

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Cut short, or changed after it was written.
    #[error("the manifest is cut short or was changed: its checksum is not that of its content")]
    Damaged,
    /// Written by another version.
    #[error("the manifest is of format {found:?}, this version of Muster reads {expected:?}")]
    Format {
        /// What it says.
        found: String,
        /// What this version reads.
        expected: &'static str,
    },
    /// Not the JSON that it should be.
    #[error("the manifest is malformed: {0}")]
    Json(#[from] serde_json::Error),
    /// More than a reader takes.
    #[error("the manifest is {bytes} bytes long, and at most {LONGEST} are read; use larger chunks")]
    TooLong {
        /// Its length.
        bytes: u64,
    },
    /// It lies in the folder of another step.
    #[error("the manifest is that of step {found}")]
    Step {
        /// The step that it says.
        found: u64,
    },
    /// Its parts do not fit together.
    #[error("the manifest contradicts itself: {0}")]
    Place(#[from] PlaceError),
}

/// What the JSON holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) format: String,
    pub(crate) step: u64,
    pub(crate) world_size: usize,
    pub(crate) state: Value,
    pub(crate) tensors: Vec<Saved>,
    pub(crate) shards: Vec<SavedShard>,
}

/// A tensor and where its elements lie: in order, each once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) tensor: Tensor,
    pub(crate) pieces: Vec<Place>,
}

/// Elements `start..end`, at `offset` of the file of the shard of that index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) shard: usize,
    pub(crate) offset: u64,
}

/// A manifest whose parts fit together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Manifest {
    content: Content,
    by_name: HashMap<String, usize>,
}

impl Manifest {
    /// Checks that every element lies at one place, inside a file.
    pub(crate) fn new(content: Content) -> Result<Self, PlaceError> {
        let by_name = place::check(&content)?;
        Ok(Self { content, by_name })
    }

    pub(crate) fn content(&self) -> &Content {
        &self.content
    }

    pub(crate) fn find(&self, tensor: &str) -> Option<&Saved> {
        self.content.tensors.get(*self.by_name.get(tensor)?)
    }
}
