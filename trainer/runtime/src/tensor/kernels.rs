//! Loops over slices that tensor libraries leave to their users: each with its derivative, vectorised for the processor
//! at hand, and with sums in an order that does not depend on the number of threads.

#![expect(clippy::inline_always, reason = "only what is inlined is compiled for the processor at hand")]

use pulp::Arch;
use rayon::prelude::*;

/// Rows that one thread takes at a time; sums over rows are made per such piece and then in order.
const ROWS: usize = 32;

/// Elements that one thread takes at a time.
const ELEMENTS: usize = 1 << 14;

/// √(2/π) and the factor of the cube in the tanh form of GELU (Hendrycks & Gimpel 2016).
const GELU: (f32, f32) = (0.797_884_6, 0.044_715);

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

#[inline(always)]
fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
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

/// Sums of pieces, in the order of the pieces.
fn in_order(pieces: Vec<Vec<f32>>, width: usize) -> Vec<f32> {
    let mut total = vec![0.0; width];
    for piece in pieces {
        total.iter_mut().zip(piece).for_each(|(total, value)| *total += value);
    }
    total
}

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

/// The mean over rows of `-ln softmax(row)[label]`, in nats.
pub(crate) fn cross_entropy(scores: &[f32], labels: &[u32]) -> f32 {
    let width = scores.len() / labels.len().max(1);
    let pieces = scores.par_chunks(ROWS * width.max(1)).zip(labels.par_chunks(ROWS)).map(|(rows, labels)| {
        Arch::new().dispatch(|| {
            let mut total = 0.0_f64;
            for (row, label) in rows.chunks_exact(width).zip(labels) {
                let highest = maximum(row);
                let normalizer = sum(width, |place| exp(row[place] - highest)).ln();
                total += f64::from(normalizer - (row[*label as usize] - highest));
            }
            total
        })
    });
    let pieces: Vec<f64> = pieces.collect();
    (pieces.into_iter().sum::<f64>() / labels.len() as f64) as f32
}

/// The gradient of [`cross_entropy`] for the scores, times `factor`.
pub(crate) fn cross_entropy_backward(scores: &[f32], labels: &[u32], factor: f32) -> Vec<f32> {
    let width = scores.len() / labels.len().max(1);
    let mut out = softmax(scores, width, 1.0, false);
    let factor = factor / labels.len() as f32;
    let rows = out.par_chunks_mut(ROWS * width.max(1)).zip(labels.par_chunks(ROWS));
    rows.for_each(|(rows, labels)| {
        for (row, label) in rows.chunks_exact_mut(width).zip(labels) {
            row[*label as usize] -= 1.0;
            for value in row {
                *value *= factor;
            }
        }
    });
    out
}

/// Rows whose largest value stands at the label; of equal ones the first counts.
pub(crate) fn correct(scores: &[f32], labels: &[u32]) -> usize {
    let width = scores.len() / labels.len().max(1);
    let best = |row: &[f32]| {
        let better = |best: usize, place: usize| if row[place] > row[best] { place } else { best };
        (1..row.len()).fold(0, better)
    };
    scores.chunks_exact(width.max(1)).zip(labels).filter(|(row, label)| best(row) == **label as usize).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(count: usize) -> impl Strategy<Value = Vec<f32>> {
        proptest::collection::vec(-3.0_f32..3.0, count)
    }

    /// Compares a gradient with the slope of `sum(weights · f(x))` in every direction.
    fn check(
        x: &[f32],
        weights: &[f32],
        gradient: &[f32],
        f: impl Fn(&[f32]) -> Vec<f32>,
    ) -> Result<(), TestCaseError> {
        let value =
            |x: &[f32]| -> f64 { f(x).iter().zip(weights).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
        for place in 0..x.len() {
            let nudge = 1e-2;
            let mut moved = x.to_vec();
            moved[place] = x[place] + nudge;
            let above = value(&moved);
            moved[place] = x[place] - nudge;
            let slope = ((above - value(&moved)) / (2.0 * f64::from(nudge))) as f32;
            prop_assert!(
                (slope - gradient[place]).abs() < 1e-2 * (1.0 + slope.abs()),
                "at {}: slope {}, gradient {}",
                place,
                slope,
                gradient[place]
            );
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn exponentials_are_precise(x in -87.0_f32..87.0) {
            let exact = f64::from(x).exp();
            prop_assert!((f64::from(exp(x)) - exact).abs() <= 3e-7 * exact, "{} against {}", exp(x), exact);
        }

        #[test]
        fn gelu_and_relu_have_their_derivatives(x in numbers(37), w in numbers(37)) {
            check(&x, &w, &gelu_backward(&x, &w), gelu)?;
            // The slope of ReLU has no value at its kink.
            let x: Vec<f32> = x.into_iter().map(|x| x + 0.1_f32.copysign(x)).collect();
            check(&x, &w, &relu_backward(&relu(&x), &w), relu)?;
        }

        #[test]
        fn softmax_has_its_derivative(x in numbers(7 * 14), w in numbers(7 * 14), causal: bool) {
            let result = softmax(&x, 7, 0.5, causal);
            for (row, values) in result.chunks_exact(7).enumerate() {
                prop_assert!((values.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                prop_assert!(!causal || values[row % 7 + 1..].iter().all(|value| *value == 0.0));
            }
            check(&x, &w, &softmax_backward(&result, &w, 7, 0.5), |x| softmax(x, 7, 0.5, causal))?;
        }

        #[test]
        fn layer_norm_has_its_derivatives(
            x in numbers(5 * 20), weight in numbers(20), bias in numbers(20), w in numbers(5 * 20),
        ) {
            let gradients = layer_norm_backward(&x, &weight, &w, 1e-5);
            check(&x, &w, &gradients.x, |x| layer_norm(x, &weight, &bias, 1e-5))?;
            check(&weight, &w, &gradients.weight, |weight| layer_norm(&x, weight, &bias, 1e-5))?;
            check(&bias, &w, &gradients.bias, |bias| layer_norm(&x, &weight, bias, 1e-5))?;
        }

        #[test]
        fn cross_entropy_has_its_derivative(
            x in numbers(6 * 9), labels in proptest::collection::vec(0_u32..9, 6),
        ) {
            let gradient = cross_entropy_backward(&x, &labels, 1.0);
            check(&x, &[1.0], &gradient, |x| vec![cross_entropy(x, &labels)])?;
        }

        #[test]
        fn rows_are_added_and_summed(x in numbers(100 * 3), bias in numbers(3), w in numbers(100 * 3)) {
            check(&bias, &w, &sum_rows(&w, 3), |bias| add_rows(&x, bias))?;
        }
    }

    #[test]
    fn sums_do_not_depend_on_the_number_of_threads() {
        let x: Vec<f32> = (0..1000 * 24).map(|place| (place as f32 * 0.37).sin()).collect();
        let weight = vec![1.5; 24];
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| (sum_rows(&x, 24), layer_norm_backward(&x, &weight, &x, 1e-5).weight))
        };
        assert_eq!(with(1), with(7));
    }

    #[test]
    fn the_first_of_equal_scores_counts() {
        assert_eq!(correct(&[1.0, 1.0, 0.0, 0.0, 2.0, 2.0], &[0, 1]), 2);
        assert_eq!(correct(&[1.0, 1.0, 0.0, 0.0, 2.0, 2.0], &[1, 2]), 0);
    }
}
