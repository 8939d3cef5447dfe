//! AdamW over flat parameters: the same arithmetic on every rank, so equal inputs stay equal to the bit.

/// AdamW with decoupled weight decay and the usual moments (0.9, 0.999).
#[derive(Debug)]
pub(crate) struct AdamW {
    weight_decay: f32,
    first_moments: Vec<f32>,
    second_moments: Vec<f32>,
    first_power: f32,
    second_power: f32,
}

const FIRST_DECAY: f32 = 0.9;
const SECOND_DECAY: f32 = 0.999;
const EPSILON: f32 = 1e-8;

impl AdamW {
    pub(crate) fn new(parameters: usize, weight_decay: f32) -> Self {
        Self {
            weight_decay,
            first_moments: vec![0.0; parameters],
            second_moments: vec![0.0; parameters],
            first_power: 1.0,
            second_power: 1.0,
        }
    }

    /// Moves the parameters one step against their gradients.
    pub(crate) fn step(&mut self, parameters: &mut [f32], gradients: &[f32], learning_rate: f32) {
        self.first_power *= FIRST_DECAY;
        self.second_power *= SECOND_DECAY;
        let (first_bias, second_bias) = (1.0 - self.first_power, 1.0 - self.second_power);
        let kept = 1.0 - learning_rate * self.weight_decay;
        let moments = self.first_moments.iter_mut().zip(&mut self.second_moments);
        for ((parameter, gradient), (first, second)) in parameters.iter_mut().zip(gradients).zip(moments) {
            *first = FIRST_DECAY * *first + (1.0 - FIRST_DECAY) * gradient;
            *second = SECOND_DECAY * *second + (1.0 - SECOND_DECAY) * gradient * gradient;
            let direction = (*first / first_bias) / ((*second / second_bias).sqrt() + EPSILON);
            *parameter = *parameter * kept - learning_rate * direction;
        }
    }
}

/// The learning rate at a step of many: from `initial` to zero along half a cosine.
pub(crate) fn cosine_decay(initial: f32, step: u64, steps: u64) -> f32 {
    let progress = step as f32 / steps.max(1) as f32;
    initial * 0.5 * (1.0 + (std::f32::consts::PI * progress).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_has_the_length_of_the_learning_rate() {
        let mut parameters = [1.0, -2.0];
        AdamW::new(2, 0.0).step(&mut parameters, &[0.5, -30.0], 0.1);
        assert!((parameters[0] - 0.9).abs() < 1e-6 && (parameters[1] + 1.9).abs() < 1e-6, "{parameters:?}");
    }

    #[test]
    fn a_parabola_is_descended() {
        let mut parameters = [5.0_f32];
        let mut optimizer = AdamW::new(1, 0.0);
        for step in 0..500 {
            let gradient = [2.0 * parameters[0]];
            optimizer.step(&mut parameters, &gradient, cosine_decay(0.1, step, 500));
        }
        assert!(parameters[0].abs() < 1e-2, "{parameters:?}");
    }

    #[test]
    fn weight_decay_shrinks_without_a_gradient() {
        let mut parameters = [1.0];
        AdamW::new(1, 0.5).step(&mut parameters, &[0.0], 0.1);
        assert!((parameters[0] - 0.95_f32).abs() < 1e-6);
    }
}
