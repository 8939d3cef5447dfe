//! Where the parts of a shard lie in its file.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::header::{self, EncodeError, Stored};
use crate::receipt::SavedPiece;
use crate::tensor::{Piece, Shard};

/// The form of a shard's file. It depends on what is saved, not on the values, so that the next save has the same.
#[derive(Debug)]
pub(crate) struct Layout {
    head: Vec<u8>,
    /// As in the shard.
    pieces: Vec<SavedPiece>,
    /// Indices into `pieces`, as they lie in the file.
    order: Vec<usize>,
    bytes: usize,
}

impl Layout {
    pub(crate) fn of(shard: &Shard<'_>) -> Result<Self, EncodeError> {
        // Wide elements first: then all of them lie at multiples of their size.
        let mut order: Vec<usize> = (0..shard.pieces.len()).collect();
        order.sort_by_key(|index| std::cmp::Reverse(shard.pieces[*index].tensor.data_type().size()));
        order.retain(|index| is_stored(&shard.pieces[*index]));

        let names: Vec<(String, Vec<u64>)> =
            order.iter().map(|index| name_and_shape(&shard.pieces[*index])).collect();
        let stored = order.iter().zip(&names).map(|(index, (name, shape))| {
            let piece = &shard.pieces[*index];
            Stored { name, data_type: piece.tensor.data_type(), shape, bytes: piece.bytes.len() as u64 }
        });
        let head = header::encode(&BTreeMap::new(), &stored.collect::<Vec<_>>())?;

        let saved = |piece: &Piece<'_>| SavedPiece {
            tensor: piece.tensor.clone(),
            start: piece.range.start,
            end: piece.range.end,
            offset: 0,
        };
        let mut pieces: Vec<SavedPiece> = shard.pieces.iter().map(saved).collect();
        let mut bytes = head.len();
        for index in &order {
            pieces[*index].offset = bytes as u64;
            bytes += shard.pieces[*index].bytes.len();
        }
        Ok(Self { head, pieces, order, bytes })
    }

    /// Whether it is the layout of this shard too.
    pub(crate) fn fits(&self, shard: &Shard<'_>) -> bool {
        self.pieces.len() == shard.pieces.len()
            && self.pieces.iter().zip(&shard.pieces).all(|(saved, piece)| {
                Range { start: saved.start, end: saved.end } == piece.range && saved.tensor == *piece.tensor
            })
    }

    /// Length of the file.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn pieces(&self) -> &[SavedPiece] {
        &self.pieces
    }

    /// Writes the file into `image`, which has room for it.
    pub(crate) fn copy(&self, shard: &Shard<'_>, image: &mut Vec<u8>) {
        image.clear();
        image.extend_from_slice(&self.head);
        for index in &self.order {
            image.extend_from_slice(shard.pieces[*index].bytes);
        }
    }
}

/// A range without elements is kept only as what a tensor without elements is.
fn is_stored(piece: &Piece<'_>) -> bool {
    !piece.range.is_empty() || piece.tensor.elements() == 0
}

/// A whole tensor keeps its name and shape, so that the file of a single rank is a model's like any other.
fn name_and_shape(piece: &Piece<'_>) -> (String, Vec<u64>) {
    let Piece { tensor, range, .. } = piece;
    if *range == (0..tensor.elements()) {
        return (tensor.name().to_owned(), tensor.shape().to_vec());
    }
    (format!("{}[{}..{}]", tensor.name(), range.start, range.end), vec![range.end - range.start])
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;
    use crate::tensor::{DataType, Tensor};

    #[test]
    fn a_shard_is_a_safetensors_file() {
        let bias = Tensor::new("bias", DataType::U8, [3]).unwrap();
        let weight = Tensor::new("weight", DataType::F64, [2, 2]).unwrap();
        let none = Tensor::new("none", DataType::F32, [0]).unwrap();
        let numbers: Vec<u8> = (0..16).collect();
        let mut shard = Shard::new();
        shard.add_whole(&bias, &[1, 2, 3]).unwrap();
        shard.add(&weight, 1..3, &numbers).unwrap();
        shard.add(&weight, 3..3, &[]).unwrap();
        shard.add_whole(&none, &[]).unwrap();
        let layout = Layout::of(&shard).unwrap();
        let mut image = Vec::new();
        layout.copy(&shard, &mut image);
        assert_eq!(image.len(), layout.bytes());
        let read = SafeTensors::deserialize(&image).unwrap();
        assert_eq!(read.len(), 3);
        assert_eq!(read.tensor("weight[1..3]").unwrap().data(), numbers);
        assert_eq!(read.tensor("bias").unwrap().shape(), [3]);
        for (saved, bytes) in layout.pieces().iter().zip([&[1, 2, 3][..], &numbers, &[], &[]]) {
            assert_eq!(image[saved.offset as usize..][..bytes.len()], *bytes);
        }
        assert_eq!(layout.pieces()[1].offset % 8, 0);

        assert!(layout.fits(&shard));
        let mut other = shard.clone();
        other.pieces[1].range = 0..2;
        assert!(!layout.fits(&other));
        shard.add(&weight, 1..3, &numbers).unwrap();
        assert_eq!(
            Layout::of(&shard).unwrap_err().to_string(),
            "two tensors of one file would be named weight[1..3]"
        );
    }
}
