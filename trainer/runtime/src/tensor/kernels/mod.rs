//! Loops over slices that tensor libraries leave to their users: each with its derivative, vectorised for the processor
//! at hand, and with sums in an order that does not depend on the number of threads.

#![expect(clippy::inline_always, reason = "only what is inlined is compiled for the processor at hand")]

mod activation;
mod attention;
mod loss;
mod norm;
mod pool;
mod rows;
#[cfg(test)]
mod tests;

pub(crate) use activation::{gelu, gelu_backward, relu, relu_backward};
pub(crate) use attention::{softmax, softmax_backward};
pub(crate) use loss::{correct, cross_entropy, cross_entropy_backward};
pub(crate) use norm::{layer_norm, layer_norm_backward};
pub(crate) use pool::{Squares, max_pool, max_pool_backward};
pub(crate) use rows::{add_rows, sum_rows};

/// Rows that one thread takes at a time; sums over rows are made per such piece and then in order.
const ROWS: usize = 32;

/// Lanes that sums are spread over.
const LANES: usize = 16;

/// `exp` without branches, to about two units in the last place; arguments outside ±87 are cut.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 87.0);
    // Adding and subtracting 1.5 · 2²³ rounds to the nearest whole number.
    let power = (x * std::f32::consts::LOG2_E + 12_582_912.0) - 12_582_912.0;
    let rest = (x - power * 0.693_359_4) - power * -2.121_944_4e-4;
    let series = 1.987_569_1e-4;
    let series = series * rest + 1.398_199_9e-3;
    let series = series * rest + 8.333_452e-3;
    let series = series * rest + 4.166_579_6e-2;
    let series = series * rest + 1.666_666_5e-1;
    let series = series * rest + 0.5;
    let scale = f32::from_bits((((power as i32) + 127) << 23).cast_unsigned());
    (series * rest * rest + rest + 1.0) * scale
}

/// A sum in a fixed order that vectorises.
#[inline(always)]
fn sum(count: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let whole = count / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    let rest: f32 = (whole..count).map(&term).sum();
    lanes.iter().sum::<f32>() + rest
}

#[inline(always)]
fn maximum(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let pieces = values.chunks_exact(LANES);
    let rest = pieces.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for piece in pieces {
        for (lane, value) in lanes.iter_mut().zip(piece) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    lanes.iter().copied().fold(rest, f32::max)
}

/// Sums of pieces, in the order of the pieces.
fn in_order(pieces: Vec<Vec<f32>>, width: usize) -> Vec<f32> {
    let mut total = vec![0.0; width];
    for piece in pieces {
        total.iter_mut().zip(piece).for_each(|(total, value)| *total += value);
    }
    total
}
