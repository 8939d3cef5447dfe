//! Layer normalisation.

use pulp::Arch;
use rayon::prelude::*;

use super::{ROWS, in_order, sum};

/// Mean and the inverse of the standard deviation of a row.
#[inline(always)]
fn moments(x: &[f32], epsilon: f32) -> (f32, f32) {
    let count = x.len() as f32;
    let mean = sum(x.len(), |place| x[place]) / count;
    let variance = sum(x.len(), |place| (x[place] - mean) * (x[place] - mean)) / count;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

/// Layer normalisation (Ba et al. 2016) of every row of as many elements as `weight` has.
pub(crate) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32) -> Vec<f32> {
    let width = weight.len().max(1);
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width)).for_each(|(out, x)| {
        Arch::new().dispatch(|| {
            for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                let (mean, scale) = moments(x, epsilon);
                for (place, out) in out.iter_mut().enumerate() {
                    *out = (x[place] - mean) * scale * weight[place] + bias[place];
                }
            }
        });
    });
    out
}

/// Gradients of [`layer_norm`].
pub(crate) struct LayerNormGradients {
    pub(crate) x: Vec<f32>,
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// The gradients of [`layer_norm`] for what went in.
pub(crate) fn layer_norm_backward(
    x: &[f32],
    weight: &[f32],
    gradient: &[f32],
    epsilon: f32,
) -> LayerNormGradients {
    let width = weight.len().max(1);
    let piece = ROWS * width;
    let mut out = vec![0.0; x.len()];
    let pieces = out.par_chunks_mut(piece).zip(x.par_chunks(piece)).zip(gradient.par_chunks(piece));
    let sums = pieces.map(|((out, x), gradient)| {
        let (mut weights, mut biases) = (vec![0.0; width], vec![0.0; width]);
        Arch::new().dispatch(|| {
            let rows = x.chunks_exact(width).zip(gradient.chunks_exact(width));
            for (out, (x, gradient)) in out.chunks_exact_mut(width).zip(rows) {
                let (mean, scale) = moments(x, epsilon);
                let count = width as f32;
                let normal = |place: usize| (x[place] - mean) * scale;
                let along = sum(width, |place| gradient[place] * weight[place]) / count;
                let across = sum(width, |place| gradient[place] * weight[place] * normal(place)) / count;
                for (place, out) in out.iter_mut().enumerate() {
                    let normal = normal(place);
                    *out = scale * (gradient[place] * weight[place] - along - normal * across);
                    weights[place] += gradient[place] * normal;
                    biases[place] += gradient[place];
                }
            }
        });
        (weights, biases)
    });
    let (weights, biases): (Vec<_>, Vec<_>) = sums.unzip();
    LayerNormGradients { x: out, weight: in_order(weights, width), bias: in_order(biases, width) }
}
