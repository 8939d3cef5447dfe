//! Whether what a manifest says fits together.

use std::collections::{HashMap, HashSet};

use super::{Content, Saved};
use crate::checksum::{self, Checksum};
use crate::names;
use crate::receipt::SavedShard;

/// How the parts of a checkpoint fail to make a whole.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Elements that nobody saved.
    #[error("no rank saved elements {start}..{end} of tensor {tensor}")]
    Gap {
        /// The tensor.
        tensor: String,
        /// The first element that is missing.
        start: u64,
        /// The first that is not.
        end: u64,
    },
    /// Elements that were saved twice.
    #[error(
        "elements {start}..{end} of tensor {tensor} were saved more than once; one rank saves what all hold"
    )]
    Twice {
        /// The tensor.
        tensor: String,
        /// The first element of both.
        start: u64,
        /// The end of both.
        end: u64,
    },
    /// A tensor is listed twice.
    #[error("tensor {0} is listed twice")]
    TensorTwice(String),
    /// A part lies outside of its file, or in none.
    #[error("elements {start}..{end} of tensor {tensor} lie in no shard file")]
    Nowhere {
        /// The tensor.
        tensor: String,
        /// The first element.
        start: u64,
        /// The end.
        end: u64,
    },
    /// A file name that leads elsewhere, or is there twice.
    #[error("{0:?} is no name for a shard file, or the name of two")]
    File(String),
    /// The checksums are not those of a file of that length.
    #[error("the checksums of {file}, of {bytes} bytes, do not fit together")]
    Checksums {
        /// The file.
        file: String,
        /// Its length.
        bytes: u64,
    },
}

/// Checks the whole, and gives the index of each tensor by name.
pub(super) fn check(content: &Content) -> Result<HashMap<String, usize>, Error> {
    let mut files = HashSet::new();
    for shard in &content.shards {
        if !names::is_plain(&shard.file) || !files.insert(&shard.file) {
            return Err(Error::File(shard.file.clone()));
        }
        if !sums_fit(shard) {
            return Err(Error::Checksums { file: shard.file.clone(), bytes: shard.bytes });
        }
    }
    let mut by_name = HashMap::with_capacity(content.tensors.len());
    for (index, saved) in content.tensors.iter().enumerate() {
        check_tensor(saved, &content.shards)?;
        if by_name.insert(saved.tensor.name().to_owned(), index).is_some() {
            return Err(Error::TensorTwice(saved.tensor.name().to_owned()));
        }
    }
    Ok(by_name)
}

fn sums_fit(shard: &SavedShard) -> bool {
    let SavedShard { bytes, checksum, chunk_bytes, chunks, .. } = shard;
    if chunks.len() as u64 != bytes.div_ceil(chunk_bytes.bytes()) || i64::try_from(*bytes).is_err() {
        return false;
    }
    match chunks.len() {
        0 => *checksum == Checksum::of(&[]),
        // Its tree has another root than it has as a part of a longer one; reading compares both.
        1 => true,
        _ => *checksum == checksum::merged(*chunk_bytes, *bytes, chunks),
    }
}

fn check_tensor(saved: &Saved, shards: &[SavedShard]) -> Result<(), Error> {
    let Saved { tensor, pieces } = saved;
    let name = || tensor.name().to_owned();
    let mut covered = 0;
    for piece in pieces {
        let (start, end) = (piece.start, piece.end);
        let place = shards.get(piece.shard).filter(|shard| {
            let length =
                end.checked_sub(start).and_then(|count| count.checked_mul(tensor.data_type().size()));
            let last = length.and_then(|length| piece.offset.checked_add(length));
            start < end && last.is_some_and(|last| last <= shard.bytes)
        });
        if place.is_none() || end > tensor.elements() {
            return Err(Error::Nowhere { tensor: name(), start, end });
        }
        if start > covered {
            return Err(Error::Gap { tensor: name(), start: covered, end: start });
        }
        if start < covered {
            return Err(Error::Twice { tensor: name(), start, end: covered.min(end) });
        }
        covered = end;
    }
    if covered < tensor.elements() {
        return Err(Error::Gap { tensor: name(), start: covered, end: tensor.elements() });
    }
    Ok(())
}
