//! How ranks share a training.

use crate::optimizer::AdamW;

/// What of the model's state every rank holds only its share of. Each level includes those above it. All levels give
/// the same results to the bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Sharding {
    /// Nothing: distributed data parallel. 16 bytes for each parameter.
    None,
    /// The optimizer's moments (ZeRO-1; Rajbhandari et al. 2020). 8 bytes for each parameter, and 8 in shares.
    Optimizer,
    /// Gradients as well (ZeRO-2). 4 bytes for each parameter, and 12 in shares.
    Gradients,
    /// Parameters as well (ZeRO-3, FSDP): one unit at a time is whole, and computed anew for its gradients.
    Parameters,
}

/// How gradients travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum GradientType {
    /// As they are.
    F32,
    /// Rounded to 16 bits before they are added, which happens in 32 bits: half the traffic.
    Bf16,
}

/// How ranks share the work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// What is held in shares.
    pub sharding: Sharding,
    /// Ranks that share between them; each group of so many consecutive ranks holds the whole (hybrid sharding: as many
    /// as one host has). All ranks when absent. Must divide the number of ranks.
    pub shard_ranks: Option<usize>,
    /// How gradients travel.
    pub gradient_type: GradientType,
    /// Smallest unit that is communicated at once, in parameters; smaller blocks are taken together.
    pub smallest_unit: usize,
    /// Keeps only what enters a unit and computes the rest anew for the gradients (Chen et al. 2016): less memory for
    /// about a third more work. Sharded parameters imply it.
    pub recompute: bool,
    /// Gradients whose norm over all parameters is larger are scaled down to it.
    pub clip_norm: Option<f32>,
    /// Where state is in shares, copies of each rank's share on the next rank, so that the loss of one costs a step at
    /// most: up to four times a share. [`Engine::mirror`] must be called after every step.
    pub mirror: bool,
    /// The optimizer.
    pub optimizer: AdamW,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sharding: Sharding::None,
            shard_ranks: None,
            gradient_type: GradientType::F32,
            // 1 MiB: from there on an all-reduce runs at the memory's speed.
            smallest_unit: 1 << 18,
            recompute: false,
            clip_norm: None,
            mirror: false,
            optimizer: AdamW::default(),
        }
    }
}

impl Options {
    pub(super) fn keeps_mirror(&self) -> bool {
        self.mirror && self.sharding != Sharding::None
    }

    /// Ranks that share between them.
    pub(super) fn ranks(&self, world_size: usize) -> usize {
        match self.sharding {
            Sharding::None => world_size,
            _ => self.shard_ranks.unwrap_or(world_size),
        }
    }
}
