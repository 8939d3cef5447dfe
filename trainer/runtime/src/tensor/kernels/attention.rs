//! The weights of attention.

use pulp::Arch;
use rayon::prelude::*;

use super::{ROWS, exp, maximum, sum};

/// Softmax of `factor · x` along rows of `width`. With `causal`, row `r` of every `width` rows sees its first `r + 1`
/// elements only, the rest become zero.
pub(crate) fn softmax(x: &[f32], width: usize, factor: f32, causal: bool) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let piece = ROWS * width.max(1);
    out.par_chunks_mut(piece).zip(x.par_chunks(piece)).enumerate().for_each(|(index, (out, x))| {
        Arch::new().dispatch(|| {
            for (row, (out, x)) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)).enumerate() {
                let seen = if causal { (index * ROWS + row) % width + 1 } else { width };
                let (out, x) = (&mut out[..seen], &x[..seen]);
                let highest = maximum(x);
                for (out, x) in out.iter_mut().zip(x) {
                    *out = exp(factor * (x - highest));
                }
                let scale = 1.0 / sum(seen, |place| out[place]);
                for out in out {
                    *out *= scale;
                }
            }
        });
    });
    out
}

/// The gradient of [`softmax`] from its `result`.
pub(crate) fn softmax_backward(result: &[f32], gradient: &[f32], width: usize, factor: f32) -> Vec<f32> {
    let mut out = vec![0.0; result.len()];
    let piece = ROWS * width.max(1);
    let pieces = out.par_chunks_mut(piece).zip(result.par_chunks(piece)).zip(gradient.par_chunks(piece));
    pieces.for_each(|((out, result), gradient)| {
        Arch::new().dispatch(|| {
            let rows = result.chunks_exact(width).zip(gradient.chunks_exact(width));
            for (out, (result, gradient)) in out.chunks_exact_mut(width).zip(rows) {
                let mean = sum(width, |place| result[place] * gradient[place]);
                for ((out, result), gradient) in out.iter_mut().zip(result).zip(gradient) {
                    *out = factor * result * (gradient - mean);
                }
            }
        });
    });
    out
}
