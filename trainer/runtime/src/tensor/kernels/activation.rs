//! Functions of single elements.

use pulp::Arch;
use rayon::prelude::*;

use super::exp;

/// Elements that one thread takes at a time.
const ELEMENTS: usize = 1 << 14;

/// √(2/π) and the factor of the cube in the tanh form of GELU (Hendrycks & Gimpel 2016).
const GELU: (f32, f32) = (0.797_884_6, 0.044_715);

#[inline(always)]
fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// GELU in its tanh form, element by element.
pub(crate) fn gelu(x: &[f32]) -> Vec<f32> {
    mapped(x, x, |x, _| 0.5 * x * (1.0 + tanh(GELU.0 * (x + GELU.1 * x * x * x))))
}

/// The derivative of [`gelu`] at `x`, times `gradient`.
pub(crate) fn gelu_backward(x: &[f32], gradient: &[f32]) -> Vec<f32> {
    mapped(x, gradient, |x, gradient| {
        let tanh = tanh(GELU.0 * (x + GELU.1 * x * x * x));
        let inner = GELU.0 * (1.0 + 3.0 * GELU.1 * x * x);
        gradient * (0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * inner)
    })
}

/// The larger of each element and zero.
pub(crate) fn relu(x: &[f32]) -> Vec<f32> {
    mapped(x, x, |x, _| if x > 0.0 { x } else { 0.0 })
}

/// `gradient` where the result of [`relu`] was above zero.
pub(crate) fn relu_backward(result: &[f32], gradient: &[f32]) -> Vec<f32> {
    mapped(result, gradient, |result, gradient| if result > 0.0 { gradient } else { 0.0 })
}

fn mapped(x: &[f32], y: &[f32], map: impl Fn(f32, f32) -> f32 + Copy + Sync) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let pieces = out.par_chunks_mut(ELEMENTS).zip(x.par_chunks(ELEMENTS)).zip(y.par_chunks(ELEMENTS));
    pieces.for_each(|((out, x), y)| {
        Arch::new().dispatch(|| {
            for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
                *out = map(*x, *y);
            }
        });
    });
    out
}
