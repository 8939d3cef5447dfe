//! Adding to rows and adding rows up.

use pulp::Arch;
use rayon::prelude::*;

use super::{ROWS, in_order};

/// Adds `bias` to every row.
pub(crate) fn add_rows(x: &[f32], bias: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let piece = ROWS * bias.len().max(1);
    out.par_chunks_mut(piece).zip(x.par_chunks(piece)).for_each(|(out, x)| {
        Arch::new().dispatch(|| {
            for (out, x) in out.chunks_exact_mut(bias.len()).zip(x.chunks_exact(bias.len())) {
                for ((out, x), bias) in out.iter_mut().zip(x).zip(bias) {
                    *out = x + bias;
                }
            }
        });
    });
    out
}

/// The sum of all rows, of `width` elements each.
pub(crate) fn sum_rows(x: &[f32], width: usize) -> Vec<f32> {
    let pieces = x.par_chunks(ROWS * width.max(1)).map(|rows| {
        let mut sums = vec![0.0; width];
        Arch::new().dispatch(|| {
            for row in rows.chunks_exact(width) {
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
        });
        sums
    });
    in_order(pieces.collect(), width)
}
