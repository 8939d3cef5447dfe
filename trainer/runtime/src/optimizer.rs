//! AdamW (Loshchilov & Hutter 2019) over flat slices: the same arithmetic for each element wherever it lies, so that
//! equal inputs stay equal to the bit however the parameters are divided.

use pulp::Arch;
use rayon::prelude::*;

/// The rates of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decoupled weight decay, applied where a parameter decays.
    pub weight_decay: f32,
    /// How much of the first moment each step keeps.
    pub first_decay: f32,
    /// How much of the second moment each step keeps.
    pub second_decay: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { weight_decay: 0.01, first_decay: 0.9, second_decay: 0.999, epsilon: 1e-8 }
    }
}

/// The running moments of some elements.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Moments {
    pub(crate) first: Vec<f32>,
    pub(crate) second: Vec<f32>,
}

impl Moments {
    pub(crate) fn zeros(count: usize) -> Self {
        Self { first: vec![0.0; count], second: vec![0.0; count] }
    }
}

/// Elements that one thread takes at a time.
const PIECE: usize = 1 << 14;

impl AdamW {
    /// Moves the parameters one step against their gradients, times `scale`. `step` counts from 1.
    pub(crate) fn step(
        &self,
        parameters: &mut [f32],
        gradients: &[f32],
        (first, second): (&mut [f32], &mut [f32]),
        rate: StepRate,
    ) {
        let corrected = |decay: f32| (1.0 - f64::from(decay).powi(rate.step.min(1 << 30) as i32)) as f32;
        let (first_bias, second_bias) = (corrected(self.first_decay), corrected(self.second_decay));
        let Self { first_decay, second_decay, epsilon, weight_decay } = *self;
        let StepRate { learning_rate, scale, decays, .. } = rate;
        let kept = if decays { 1.0 - learning_rate * weight_decay } else { 1.0 };
        let moments = first.par_chunks_mut(PIECE).zip(second.par_chunks_mut(PIECE));
        let pieces = parameters.par_chunks_mut(PIECE).zip(gradients.par_chunks(PIECE)).zip(moments);
        pieces.for_each(|((parameters, gradients), (first, second))| {
            Arch::new().dispatch(|| {
                let moments = first.iter_mut().zip(second.iter_mut());
                for ((parameter, gradient), (first, second)) in
                    parameters.iter_mut().zip(gradients).zip(moments)
                {
                    let gradient = gradient * scale;
                    *first = first_decay * *first + (1.0 - first_decay) * gradient;
                    *second = second_decay * *second + (1.0 - second_decay) * gradient * gradient;
                    let direction = (*first / first_bias) / ((*second / second_bias).sqrt() + epsilon);
                    *parameter = *parameter * kept - learning_rate * direction;
                }
            });
        });
    }
}

/// How far one step goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StepRate {
    /// The step, from 1.
    pub(crate) step: u64,
    pub(crate) learning_rate: f32,
    /// What gradients are multiplied with, below 1 when they are clipped.
    pub(crate) scale: f32,
    /// Whether weight decay applies.
    pub(crate) decays: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(
        parameters: &mut [f32],
        gradients: &[f32],
        moments: &mut Moments,
        optimizer: AdamW,
        step: u64,
        rate: f32,
    ) {
        let rate = StepRate { step, learning_rate: rate, scale: 1.0, decays: true };
        optimizer.step(parameters, gradients, (&mut moments.first, &mut moments.second), rate);
    }

    #[test]
    fn the_first_step_has_the_length_of_the_learning_rate() {
        let mut parameters = [1.0, -2.0];
        let optimizer = AdamW { weight_decay: 0.0, ..AdamW::default() };
        moved(&mut parameters, &[0.5, -30.0], &mut Moments::zeros(2), optimizer, 1, 0.1);
        assert!((parameters[0] - 0.9).abs() < 1e-6 && (parameters[1] + 1.9).abs() < 1e-6, "{parameters:?}");
    }

    #[test]
    fn a_parabola_is_descended() {
        let mut parameters = [5.0_f32];
        let mut moments = Moments::zeros(1);
        let optimizer = AdamW { weight_decay: 0.0, ..AdamW::default() };
        for step in 0..500 {
            let gradient = [2.0 * parameters[0]];
            let rate = crate::schedule::Schedule::cosine(0.1, 0, 500).rate(step);
            moved(&mut parameters, &gradient, &mut moments, optimizer, step + 1, rate);
        }
        assert!(parameters[0].abs() < 1e-2, "{parameters:?}");
    }

    #[test]
    fn weight_decay_shrinks_without_a_gradient() {
        let mut parameters = [1.0];
        let optimizer = AdamW { weight_decay: 0.5, ..AdamW::default() };
        moved(&mut parameters, &[0.0], &mut Moments::zeros(1), optimizer, 1, 0.1);
        assert!((parameters[0] - 0.95_f32).abs() < 1e-6);
    }

    #[test]
    fn pieces_move_as_the_whole_does() {
        let gradients: Vec<f32> = (0..40_000).map(|place| (place as f32 * 0.1).sin()).collect();
        let mut whole = vec![0.5; gradients.len()];
        let mut divided = whole.clone();
        let mut moments = Moments::zeros(whole.len());
        moved(&mut whole, &gradients, &mut moments, AdamW::default(), 1, 0.1);
        for (parameters, gradients) in divided.chunks_mut(777).zip(gradients.chunks(777)) {
            moved(parameters, gradients, &mut Moments::zeros(gradients.len()), AdamW::default(), 1, 0.1);
        }
        assert_eq!(whole, divided);
    }
}
