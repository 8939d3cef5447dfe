//! What is saved: named tensors, and the parts of them that a rank holds.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The type of a tensor's elements, named as in the safetensors format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names are the types")]
pub enum DataType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I8,
    U8,
    Bool,
}

impl DataType {
    /// Bytes of one element.
    pub const fn size(self) -> u64 {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// `None` for the types of the format that Muster does not train with.
    pub(crate) fn from_safetensors(data_type: safetensors::Dtype) -> Option<Self> {
        use safetensors::Dtype;
        Some(match data_type {
            Dtype::F64 => Self::F64,
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::BF16,
            Dtype::I64 => Self::I64,
            Dtype::I32 => Self::I32,
            Dtype::I8 => Self::I8,
            Dtype::U8 => Self::U8,
            Dtype::BOOL => Self::Bool,
            _ => return None,
        })
    }
}

/// Why a tensor or a part of one cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The name is empty, or the one under which files keep their metadata.
    #[error("a tensor cannot be named {0:?}")]
    Name(String),
    /// More bytes than can be counted.
    #[error("tensor {name} of shape {shape:?} is too large to be counted in bytes")]
    TooLarge {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// The range reaches beyond the tensor, or ends before it starts.
    #[error("tensor {name} has {elements} elements, and no range {}..{}", range.start, range.end)]
    OutOfRange {
        /// The tensor.
        name: String,
        /// What it has.
        elements: u64,
        /// What was asked for.
        range: Range<u64>,
    },
    /// The bytes are not those of the range.
    #[error(
        "elements {}..{} of tensor {name} are {expected} bytes, not {found}", range.start, range.end
    )]
    Length {
        /// The tensor.
        name: String,
        /// The elements.
        range: Range<u64>,
        /// Bytes of the range.
        expected: u64,
        /// Bytes given.
        found: u64,
    },
}

/// A tensor as a whole: its name, the type of its elements, and its global shape (row-major; `[]` is a scalar).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Tensor {
    name: String,
    data_type: DataType,
    shape: Vec<u64>,
    #[serde(skip)]
    elements: u64,
}

#[derive(Deserialize)]
struct Unchecked {
    name: String,
    data_type: DataType,
    shape: Vec<u64>,
}

impl TryFrom<Unchecked> for Tensor {
    type Error = Error;

    fn try_from(unchecked: Unchecked) -> Result<Self, Error> {
        Self::new(unchecked.name, unchecked.data_type, unchecked.shape)
    }
}

impl Tensor {
    /// A tensor of that name, type and shape.
    pub fn new(
        name: impl Into<String>,
        data_type: DataType,
        shape: impl Into<Vec<u64>>,
    ) -> Result<Self, Error> {
        let (name, shape) = (name.into(), shape.into());
        if name.is_empty() || name == "__metadata__" {
            return Err(Error::Name(name));
        }
        let elements = shape.iter().try_fold(1_u64, |product, length| product.checked_mul(*length));
        // Offsets in files, and lengths in memory, stay below the largest of either sign.
        let counted = elements.filter(|elements| {
            elements.checked_mul(data_type.size()).is_some_and(|bytes| i64::try_from(bytes).is_ok())
        });
        match counted {
            Some(elements) => Ok(Self { name, data_type, shape, elements }),
            None => Err(Error::TooLarge { name, shape }),
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of the elements.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// The global shape.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// How many elements it has over all ranks.
    pub fn elements(&self) -> u64 {
        self.elements
    }

    /// How many bytes those are.
    pub fn bytes(&self) -> u64 {
        self.elements * self.data_type.size()
    }

    /// Bytes of `range`, which lies within the tensor.
    pub(crate) fn bytes_of(&self, range: &Range<u64>) -> u64 {
        (range.end - range.start) * self.data_type.size()
    }

    /// Checks that `range` lies within the tensor, and that its elements are `found` bytes.
    pub(crate) fn check(&self, range: &Range<u64>, found: usize) -> Result<(), Error> {
        if range.start > range.end || range.end > self.elements {
            let name = self.name.clone();
            return Err(Error::OutOfRange { name, elements: self.elements, range: range.clone() });
        }
        let (expected, found) = (self.bytes_of(range), found as u64);
        if expected != found {
            return Err(Error::Length { name: self.name.clone(), range: range.clone(), expected, found });
        }
        Ok(())
    }
}

/// Elements `range` of a tensor, counted along its flat (row-major) form, and their bytes (little-endian).
#[derive(Debug, Clone)]
pub(crate) struct Piece<'a> {
    pub(crate) tensor: &'a Tensor,
    pub(crate) range: Range<u64>,
    pub(crate) bytes: &'a [u8],
}

/// What one rank saves: parts of tensors, borrowed from the training state.
///
/// Over all ranks, every element of every tensor must be there once: what all ranks hold alike, one of them adds.
#[derive(Debug, Clone, Default)]
pub struct Shard<'a> {
    pub(crate) pieces: Vec<Piece<'a>>,
}

impl<'a> Shard<'a> {
    /// A shard without anything in it: also that is one to save.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds elements `range` of the tensor's flat form, which are `bytes`. A rank may hold several ranges of a tensor.
    pub fn add(&mut self, tensor: &'a Tensor, range: Range<u64>, bytes: &'a [u8]) -> Result<(), Error> {
        tensor.check(&range, bytes.len())?;
        self.pieces.push(Piece { tensor, range, bytes });
        Ok(())
    }

    /// Adds the whole tensor.
    pub fn add_whole(&mut self, tensor: &'a Tensor, bytes: &'a [u8]) -> Result<(), Error> {
        self.add(tensor, 0..tensor.elements, bytes)
    }

    /// How many bytes the parts are.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_that_cannot_be_are_refused() {
        assert_eq!(Tensor::new("", DataType::F32, []), Err(Error::Name(String::new())));
        assert!(matches!(Tensor::new("a", DataType::F64, [1 << 60]), Err(Error::TooLarge { .. })));
        assert!(matches!(Tensor::new("a", DataType::U8, [u64::MAX, 2]), Err(Error::TooLarge { .. })));
        assert!(serde_json::from_str::<Tensor>(r#"{"name":"a","data_type":"F64","shape":[1,1]}"#).is_ok());
        assert!(serde_json::from_str::<Tensor>(r#"{"name":"","data_type":"F64","shape":[]}"#).is_err());
    }

    #[test]
    fn parts_must_lie_within_and_fit() {
        let tensor = Tensor::new("a", DataType::BF16, [2, 3]).unwrap();
        let mut shard = Shard::new();
        shard.add(&tensor, 1..3, &[0; 4]).unwrap();
        assert_eq!(shard.bytes(), 4);
        let message = shard.add(&tensor, 5..7, &[0; 4]).unwrap_err().to_string();
        assert_eq!(message, "tensor a has 6 elements, and no range 5..7");
        let message = shard.add(&tensor, 1..3, &[0; 3]).unwrap_err().to_string();
        assert_eq!(message, "elements 1..3 of tensor a are 4 bytes, not 3");
    }
}
