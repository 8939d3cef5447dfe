//! From the receipts of all ranks to the manifest.

use std::collections::HashMap;

use serde_json::Value;

use super::coding::FORMAT;
use super::{Content, Manifest, Place, PlaceError, Saved};
use crate::receipt::ShardReceipt;

/// Why receipts are not those of one whole checkpoint.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A receipt of another step or group of ranks.
    #[error(
        "the receipt of rank {rank} is for step {step} of {world_size} ranks, another one than that of rank {other}"
    )]
    Stranger {
        /// The rank of the receipt.
        rank: usize,
        /// Its step.
        step: u64,
        /// Its number of ranks.
        world_size: usize,
        /// Whose receipt was first.
        other: usize,
    },
    /// A rank is missing, or there twice.
    #[error("there are {found} receipts of rank {rank} of {world_size}, and one is needed")]
    Rank {
        /// The rank.
        rank: usize,
        /// Ranks of the group.
        world_size: usize,
        /// Receipts of that rank.
        found: usize,
    },
    /// There is nothing to commit.
    #[error("there are no receipts to commit")]
    None,
    /// Two ranks mean different tensors by one name.
    #[error("rank {rank} saved another tensor by the name of {tensor} than rank {other}")]
    Differs {
        /// The tensor.
        tensor: String,
        /// The rank that differs.
        rank: usize,
        /// A rank that came before.
        other: usize,
    },
    /// The parts do not make a whole.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// Puts the shards together; every rank must have written its own, and all elements be there once.
pub(crate) fn assemble(state: Value, receipts: &[ShardReceipt]) -> Result<Manifest, Error> {
    let first = receipts.first().ok_or(Error::None)?;
    let (step, world_size) = (first.step, first.world_size);
    if let Some(stranger) =
        receipts.iter().find(|receipt| (receipt.step, receipt.world_size) != (step, world_size))
    {
        let ShardReceipt { rank, step, world_size, .. } = *stranger;
        return Err(Error::Stranger { rank, step, world_size, other: first.rank });
    }
    let mut by_rank: Vec<&ShardReceipt> = receipts.iter().collect();
    by_rank.sort_by_key(|receipt| receipt.rank);
    // Compared with the count first: what a receipt says of the number of ranks is not to be believed yet.
    let wrong = |(rank, receipt): (usize, &&ShardReceipt)| (receipt.rank != rank).then_some(rank);
    let odd = by_rank.iter().enumerate().find_map(wrong);
    if let Some(place) = odd.or((by_rank.len() != world_size).then_some(by_rank.len().min(world_size))) {
        // A rank that is there twice pushes the next one from its place.
        let count = |rank: usize| by_rank.iter().filter(|receipt| receipt.rank == rank).count();
        let rank = if place > 0 && count(place - 1) > 1 { place - 1 } else { place };
        return Err(Error::Rank { rank, world_size, found: count(rank) });
    }

    let mut tensors: Vec<Saved> = Vec::new();
    let mut known: HashMap<&str, (usize, usize)> = HashMap::new();
    for (shard, receipt) in by_rank.iter().enumerate() {
        for piece in &receipt.pieces {
            let next = (tensors.len(), receipt.rank);
            let (index, other) = *known.entry(piece.tensor.name()).or_insert(next);
            if index == tensors.len() {
                tensors.push(Saved { tensor: piece.tensor.clone(), pieces: Vec::new() });
            } else if tensors[index].tensor != piece.tensor {
                let tensor = piece.tensor.name().to_owned();
                return Err(Error::Differs { tensor, rank: receipt.rank, other });
            }
            if piece.start != piece.end {
                let place = Place { start: piece.start, end: piece.end, shard, offset: piece.offset };
                tensors[index].pieces.push(place);
            }
        }
    }
    for saved in &mut tensors {
        saved.pieces.sort_by_key(|piece| (piece.start, piece.end));
    }
    let shards = by_rank.iter().map(|receipt| receipt.shard.clone()).collect();
    let format = FORMAT.to_owned();
    Ok(Manifest::new(Content { format, step, world_size, state, tensors, shards })?)
}
