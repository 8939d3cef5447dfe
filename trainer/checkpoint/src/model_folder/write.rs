//! Writing a model folder.

use std::collections::BTreeMap;

use super::{INDEX, SINGLE, index};
use crate::header::{self, EncodeError, Stored};
use crate::store::{self, Store};
use crate::tensor::Tensor;

/// Why a model could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// There is a model already.
    #[error("there is a model already ({0}); write to a new folder, or remove it first")]
    Exists(&'static str),
    /// The tensors make no file.
    #[error("{file} cannot be written: {source}")]
    Header {
        /// The file.
        file: String,
        /// Why.
        source: EncodeError,
    },
    /// The index cannot be written.
    #[error("{INDEX} cannot be written: {0}")]
    Index(#[from] index::Error),
    /// The values of a tensor could not be had.
    #[error("the values of tensor {tensor} cannot be had: {source}")]
    Values {
        /// The tensor.
        tensor: String,
        /// What the caller's function says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// How a model is written.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// Bytes of tensors in a file at most; a larger tensor has a file to itself.
    pub most_bytes_a_file: u64,
    /// What each file says of itself.
    pub metadata: BTreeMap<String, String>,
}

impl Default for ModelOptions {
    /// Files of 5 GB, which name the format of PyTorch, as the Python libraries want.
    fn default() -> Self {
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        Self { most_bytes_a_file: 5_000_000_000, metadata }
    }
}

/// Writes a model to the root of a store that has none: one file, or several and an index.
///
/// `values` fills in the bytes (little-endian) of one tensor at a time, so that only the largest need fit into memory.
/// The file that makes it a model comes last; what a failure leaves is no model, and does not hinder another attempt.
pub fn write_model(
    store: &dyn Store,
    tensors: &[Tensor],
    options: &ModelOptions,
    mut values: impl FnMut(&Tensor, &mut [u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>>,
) -> Result<(), Error> {
    for name in [SINGLE, INDEX] {
        match store.size(name) {
            Err(store::Error::NotFound { .. }) => {}
            found => return Err(found.map_or_else(Error::Store, |_| Error::Exists(name))),
        }
    }
    let groups = split(tensors, options.most_bytes_a_file);
    if let [group] = &groups[..] {
        return write_file(store, SINGLE, group, options, &mut values);
    }
    let mut files = index::Files::new();
    for (number, group) in groups.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", number + 1, groups.len());
        write_file(store, &file, group, options, &mut values)?;
        files.insert(file, group.iter().map(|tensor| tensor.name().to_owned()).collect());
    }
    let total_size = tensors.iter().map(Tensor::bytes).sum();
    Ok(store::write_whole(store, INDEX, &index::encode(&files, total_size)?)?)
}

/// At least one group, in the order given.
fn split(tensors: &[Tensor], most: u64) -> Vec<Vec<&Tensor>> {
    let mut groups = vec![Vec::new()];
    let mut room = most;
    for tensor in tensors {
        if let Some(left) = room.checked_sub(tensor.bytes()) {
            room = left;
        } else {
            if groups.last().is_some_and(|group| !group.is_empty()) {
                groups.push(Vec::new());
            }
            room = most.saturating_sub(tensor.bytes());
        }
        if let Some(group) = groups.last_mut() {
            group.push(tensor);
        }
    }
    groups
}

fn write_file(
    store: &dyn Store,
    file: &str,
    tensors: &[&Tensor],
    options: &ModelOptions,
    values: &mut impl FnMut(&Tensor, &mut [u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>>,
) -> Result<(), Error> {
    // Wide elements first: then all of them lie at multiples of their size.
    let mut tensors = tensors.to_vec();
    tensors.sort_by_key(|tensor| std::cmp::Reverse(tensor.data_type().size()));
    let stored = tensors.iter().map(|tensor| Stored {
        name: tensor.name(),
        data_type: tensor.data_type(),
        shape: tensor.shape(),
        bytes: tensor.bytes(),
    });
    let head = header::encode(&options.metadata, &stored.collect::<Vec<_>>())
        .map_err(|source| Error::Header { file: file.to_owned(), source })?;
    let bytes = tensors.iter().map(|tensor| tensor.bytes()).sum::<u64>() + head.len() as u64;
    let mut upload = store.create(file, bytes)?;
    upload.write(&head)?;
    let mut buffer = Vec::new();
    for tensor in tensors {
        buffer.clear();
        buffer.resize(tensor.bytes() as usize, 0);
        values(tensor, &mut buffer)
            .map_err(|source| Error::Values { tensor: tensor.name().to_owned(), source })?;
        for part in buffer.chunks(PART) {
            upload.write(part)?;
        }
    }
    Ok(upload.finish()?)
}

/// Bytes handed to the store at a time, so that an upload does not hold a whole tensor a second time.
const PART: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DataType;

    #[test]
    fn files_are_filled_in_order() {
        let tensors: Vec<_> = [3, 3, 5, 20, 1, 9]
            .iter()
            .enumerate()
            .map(|(index, length)| Tensor::new(format!("t{index}"), DataType::U8, [*length]).unwrap())
            .collect();
        let lengths = |most| -> Vec<Vec<u64>> {
            let groups = split(&tensors, most);
            groups.iter().map(|group| group.iter().map(|tensor| tensor.bytes()).collect()).collect()
        };
        assert_eq!(lengths(10), [vec![3, 3], vec![5], vec![20], vec![1, 9]]);
        assert_eq!(lengths(0).len(), 6);
        assert_eq!(lengths(41).len(), 1);
        assert_eq!(split(&[], 10).len(), 1);
    }
}
