//! The loss of scores against labels.

use pulp::Arch;
use rayon::prelude::*;

use super::{ROWS, exp, maximum, softmax, sum};

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
