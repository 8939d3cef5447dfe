//! The index of a model in several files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The longest index that is read.
pub(super) const LONGEST: u64 = 256 << 20;

/// Why an index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the JSON that it should be.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// More than is read.
    #[error("it is {0} bytes long, and at most {LONGEST} are read")]
    TooLong(u64),
    /// A file outside of the model's folder.
    #[error("it names {0:?}, which is no file of the folder")]
    Elsewhere(String),
}

/// The tensors of each file.
pub(super) type Files = BTreeMap<String, Vec<String>>;

#[derive(Debug, Serialize, Deserialize)]
struct Index {
    /// Left out by some writers.
    #[serde(default)]
    metadata: Metadata,
    weight_map: BTreeMap<String, String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Metadata {
    /// In bytes; some writers give a fraction.
    #[serde(default)]
    total_size: serde_json::Value,
}

pub(super) fn decode(text: &[u8]) -> Result<Files, Error> {
    let index: Index = serde_json::from_slice(text)?;
    let mut files = Files::new();
    for (tensor, file) in index.weight_map {
        files.entry(file).or_default().push(tensor);
    }
    Ok(files)
}

pub(super) fn encode(files: &Files, total_size: u64) -> Result<Vec<u8>, Error> {
    let by_tensor = files.iter().flat_map(|(file, tensors)| tensors.iter().map(move |name| (name, file)));
    let weight_map = by_tensor.map(|(name, file)| (name.clone(), file.clone())).collect();
    let metadata = Metadata { total_size: total_size.into() };
    Ok(serde_json::to_vec_pretty(&Index { metadata, weight_map })?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_index_without_metadata_is_read() {
        let files = decode(br#"{"weight_map":{"a":"1.safetensors","b":"1.safetensors"}}"#).unwrap();
        assert_eq!(files["1.safetensors"], ["a", "b"]);
        assert!(decode(b"{}").unwrap_err().to_string().contains("weight_map"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn what_is_written_is_read(files in proptest::collection::btree_map(
            "[a-z]{1,3}", proptest::collection::btree_set("[a-z.]{1,9}", 1..4), 0..4,
        )) {
            let mut seen = std::collections::HashSet::new();
            let mut expected = Files::new();
            for (file, names) in files {
                let names: Vec<_> = names.into_iter().filter(|name| seen.insert(name.clone())).collect();
                if !names.is_empty() {
                    expected.insert(file, names);
                }
            }
            prop_assert_eq!(decode(&encode(&expected, 7).unwrap()).unwrap(), expected);
        }
    }
}
