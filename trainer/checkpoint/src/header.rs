//! The head of a safetensors file: what lies where in it.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use safetensors::tensor::Metadata;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::tensor::{DataType, Tensor};

/// Bytes of the length in front of the header.
pub(crate) const LENGTH: u64 = 8;
/// The longest header that readers of the format take.
const LONGEST: u64 = 100_000_000;

/// Why a file is no safetensors file that can be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not even a length.
    #[error("the file has {0} bytes and no header")]
    TooShort(u64),
    /// A length that cannot be.
    #[error("the header is said to be {said} bytes long, of a file of {file}")]
    Length {
        /// What the file says.
        said: u64,
        /// Bytes of the file.
        file: u64,
    },
    /// Not the JSON that it should be, or its parts do not fit together.
    #[error("the header is not one of the safetensors format: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The tensors end elsewhere than the file.
    #[error("the header describes {described} bytes of tensors, the file has {found}")]
    Size {
        /// By the header.
        described: u64,
        /// After the header.
        found: u64,
    },
    /// A type that Muster does not train with.
    #[error("tensor {name} is of type {data_type}, which is not supported")]
    DataType {
        /// The tensor.
        name: String,
        /// Its type.
        data_type: String,
    },
    /// A tensor that cannot be.
    #[error(transparent)]
    Tensor(#[from] crate::tensor::Error),
}

/// A tensor in a file, and where its bytes are, counted from the start of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) tensor: Tensor,
    pub(crate) bytes: Range<u64>,
}

/// How long the header is by the first bytes of a file of `file` bytes.
pub(crate) fn length(first: &[u8], file: u64) -> Result<u64, Error> {
    let Some(said) = first.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else {
        return Err(Error::TooShort(file));
    };
    if said > LONGEST || said > file.saturating_sub(LENGTH) {
        return Err(Error::Length { said, file });
    }
    Ok(said)
}

/// Reads a header, without the length in front of it, of a file of `file` bytes.
pub(crate) fn decode(header: &[u8], file: u64) -> Result<Vec<Placed>, Error> {
    let metadata: Metadata = serde_json::from_slice(header)?;
    let start = LENGTH + header.len() as u64;
    let mut placed = Vec::new();
    let mut described = 0;
    for (name, about) in metadata.tensors() {
        let Some(data_type) = DataType::from_safetensors(about.dtype) else {
            return Err(Error::DataType { name, data_type: about.dtype.to_string() });
        };
        let shape: Vec<u64> = about.shape.iter().map(|length| *length as u64).collect();
        let (first, end) = (about.data_offsets.0 as u64, about.data_offsets.1 as u64);
        described = described.max(end);
        let tensor = Tensor::new(name, data_type, shape)?;
        placed.push(Placed { tensor, bytes: start.saturating_add(first)..start.saturating_add(end) });
    }
    let found = file.saturating_sub(start);
    if described != found {
        return Err(Error::Size { described, found });
    }
    placed.sort_by(|left, right| {
        left.bytes.start.cmp(&right.bytes.start).then_with(|| left.tensor.name().cmp(right.tensor.name()))
    });
    Ok(placed)
}

/// A tensor as a header names it.
#[derive(Debug, Clone)]
pub(crate) struct Stored<'a> {
    pub(crate) name: &'a str,
    pub(crate) data_type: DataType,
    pub(crate) shape: &'a [u64],
    pub(crate) bytes: u64,
}

#[derive(Serialize)]
struct Item<'a> {
    dtype: DataType,
    shape: &'a [u64],
    data_offsets: (u64, u64),
}

/// Written by hand, because the order of the library's own is that of a hash map.
struct Header<'a>(&'a BTreeMap<String, String>, &'a [Stored<'a>]);

impl Serialize for Header<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(metadata, tensors) = self;
        let mut map = serializer.serialize_map(None)?;
        if !metadata.is_empty() {
            map.serialize_entry("__metadata__", metadata)?;
        }
        let mut offset = 0;
        for Stored { name, data_type, shape, bytes } in *tensors {
            let item = Item { dtype: *data_type, shape, data_offsets: (offset, offset + bytes) };
            offset += bytes;
            map.serialize_entry(name, &item)?;
        }
        map.end()
    }
}

/// Two tensors of one file share a name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("two tensors of one file would be named {0}")]
pub struct SameName(pub String);

/// The head of a file with those tensors one after the other: the length, then the header, padded so that the tensors
/// start at a multiple of 8.
pub(crate) fn encode(
    metadata: &BTreeMap<String, String>,
    tensors: &[Stored<'_>],
) -> Result<Vec<u8>, EncodeError> {
    let mut names = HashSet::with_capacity(tensors.len());
    if let Some(twice) = tensors.iter().find(|tensor| !names.insert(tensor.name)) {
        return Err(SameName(twice.name.to_owned()).into());
    }
    let mut head = vec![0; LENGTH as usize];
    serde_json::to_writer(&mut head, &Header(metadata, tensors)).map_err(EncodeError::Json)?;
    head.resize(head.len().next_multiple_of(LENGTH as usize), b' ');
    let length = head.len() as u64 - LENGTH;
    if length > LONGEST {
        return Err(EncodeError::TooLong(length));
    }
    head[..LENGTH as usize].copy_from_slice(&length.to_le_bytes());
    Ok(head)
}

/// Why a header cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Two tensors share a name.
    #[error(transparent)]
    SameName(#[from] SameName),
    /// More than readers take.
    #[error("the header of a file would be {0} bytes long, and readers take {LONGEST}; use more files")]
    TooLong(u64),
    /// It is not JSON.
    #[error("the header cannot be written: {0}")]
    Json(serde_json::Error),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use safetensors::SafeTensors;

    use super::*;

    fn decode_file(file: &[u8]) -> Result<Vec<Placed>, Error> {
        let bytes = file.len() as u64;
        let header = length(file, bytes)?;
        decode(&file[8..8 + header as usize], bytes)
    }

    fn file() -> Vec<u8> {
        let stored = [
            Stored { name: "a", data_type: DataType::F32, shape: &[2, 1], bytes: 8 },
            Stored { name: "é\"", data_type: DataType::Bool, shape: &[], bytes: 1 },
            Stored { name: "none", data_type: DataType::BF16, shape: &[0, 3], bytes: 0 },
        ];
        let mut file = encode(&BTreeMap::from([("format".into(), "pt".into())]), &stored).unwrap();
        file.extend([7; 9]);
        file
    }

    #[test]
    fn the_library_and_we_read_what_we_write() {
        let file = file();
        let theirs = SafeTensors::deserialize(&file).unwrap();
        assert_eq!(theirs.tensor("a").unwrap().shape(), [2, 1]);
        assert_eq!(theirs.tensor("é\"").unwrap().data(), [7]);
        let ours = decode_file(&file).unwrap();
        let names: Vec<_> = ours.iter().map(|placed| placed.tensor.name()).collect();
        assert_eq!((names, ours[0].bytes.start % 8), (vec!["a", "é\"", "none"], 0));
        assert_eq!(ours[1].bytes.end, file.len() as u64);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let file = file();
        let says = |file: &[u8], expected: &str| {
            let message = decode_file(file).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        says(&file[..5], "5 bytes and no header");
        says(&file[..20], "of a file of 20");
        says(&[0xff; 20], "is said to be 18446744073709551615 bytes long");
        says(&file[..file.len() - 1], "describes 9 bytes of tensors, the file has 8");
        let replaced = |from: &str, to: &str| {
            let at = file.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            let mut changed = file.clone();
            changed[at..at + from.len()].copy_from_slice(to.as_bytes());
            changed
        };
        says(&replaced("\"BOOL\"", "\"F8E4\""), "not one of the safetensors format");
        says(&replaced("[8,9]", "[7,9]"), "not one of the safetensors format");
        says(&replaced("[2,1]", "[3,1]"), "not one of the safetensors format");
    }

    #[test]
    fn a_name_is_used_once() {
        let stored = Stored { name: "a", data_type: DataType::U8, shape: &[1], bytes: 1 };
        let message = encode(&BTreeMap::new(), &[stored.clone(), stored]).unwrap_err().to_string();
        assert_eq!(message, "two tensors of one file would be named a");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_file(&bytes);
        }

        #[test]
        fn damaged_headers_are_refused_or_consistent(at: prop::sample::Index, byte: u8) {
            let mut file = file();
            let at = at.index(file.len());
            file[at] = byte;
            if let Ok(placed) = decode_file(&file) {
                for Placed { tensor, bytes } in placed {
                    prop_assert_eq!(tensor.bytes(), bytes.end - bytes.start);
                    prop_assert!(bytes.end <= file.len() as u64);
                }
            }
        }

        #[test]
        fn arbitrary_json_is_refused_or_read(
            shape in proptest::collection::vec(any::<u64>(), 0..4), start: u64, end: u64, bytes in 0_u64..100,
        ) {
            let header = format!(r#"{{"a":{{"dtype":"F64","shape":{shape:?},"data_offsets":[{start},{end}]}}}}"#);
            if let Ok(placed) = decode(header.as_bytes(), header.len() as u64 + 8 + bytes) {
                prop_assert_eq!(placed[0].tensor.bytes(), bytes);
            }
        }
    }
}
