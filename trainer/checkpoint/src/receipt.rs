//! What a rank tells rank 0 about the shard it wrote.

use serde::{Deserialize, Serialize};

use crate::checksum::{Checksum, ChunkSize};
use crate::tensor::Tensor;

/// Proof that a rank's shard of a step is written and durable, for [`commit`](crate::Checkpoints::commit).
///
/// It is plain data (serde): the ranks send it to rank 0 by whatever connects them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardReceipt {
    pub(crate) step: u64,
    pub(crate) rank: usize,
    pub(crate) world_size: usize,
    #[serde(flatten)]
    pub(crate) shard: SavedShard,
    pub(crate) pieces: Vec<SavedPiece>,
}

impl ShardReceipt {
    /// The step that was saved.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The rank that saved it.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Name of the file in the checkpoint's folder.
    pub fn file(&self) -> &str {
        &self.shard.file
    }

    /// Length of the file.
    pub fn bytes(&self) -> u64 {
        self.shard.bytes
    }

    /// BLAKE3 of the file.
    pub fn checksum(&self) -> Checksum {
        self.shard.checksum
    }
}

/// A shard's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedShard {
    pub(crate) file: String,
    pub(crate) bytes: u64,
    pub(crate) checksum: Checksum,
    pub(crate) chunk_bytes: ChunkSize,
    pub(crate) chunks: Vec<Checksum>,
}

/// Elements `start..end` of a tensor, whose bytes begin at `offset` of the shard's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedPiece {
    pub(crate) tensor: Tensor,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) offset: u64,
}
