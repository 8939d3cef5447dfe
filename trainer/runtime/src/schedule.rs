//! Learning rates over the steps of a training.

use std::f32::consts::PI;

/// How the learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Decay {
    /// It stays.
    Constant,
    /// To zero along a straight line.
    Linear,
    /// To zero along half a cosine (Loshchilov & Hutter 2017).
    Cosine,
    /// With the inverse root of the step (Vaswani et al. 2017).
    InverseRoot,
}

/// The learning rate of every step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The highest rate.
    pub peak: f32,
    /// Steps over which the rate rises to the peak along a straight line.
    pub warmup: u64,
    /// Steps in all.
    pub steps: u64,
    /// What follows the warm-up.
    pub decay: Decay,
}

impl Schedule {
    /// A warm-up and half a cosine.
    pub fn cosine(peak: f32, warmup: u64, steps: u64) -> Self {
        Self { peak, warmup, steps, decay: Decay::Cosine }
    }

    /// The rate of a step, counted from 0.
    pub fn rate(&self, step: u64) -> f32 {
        if step < self.warmup {
            return self.peak * (step + 1) as f32 / (self.warmup + 1) as f32;
        }
        let length = self.steps.saturating_sub(self.warmup).max(1);
        let progress = ((step - self.warmup) as f32 / length as f32).min(1.0);
        match self.decay {
            Decay::Constant => self.peak,
            Decay::Linear => self.peak * (1.0 - progress),
            Decay::Cosine => self.peak * 0.5 * (1.0 + (PI * progress).cos()),
            Decay::InverseRoot => self.peak * ((self.warmup + 1) as f32 / (step + 1) as f32).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_to_the_peak_and_fall_as_named() {
        let rates = |decay| {
            let schedule = Schedule { peak: 1.0, warmup: 3, steps: 11, decay };
            [0, 2, 3, 7, 11].map(|step| (schedule.rate(step) * 100.0).round() as u8)
        };
        assert_eq!(rates(Decay::Constant), [25, 75, 100, 100, 100]);
        assert_eq!(rates(Decay::Linear), [25, 75, 100, 50, 0]);
        assert_eq!(rates(Decay::Cosine), [25, 75, 100, 50, 0]);
        assert_eq!(rates(Decay::InverseRoot), [25, 75, 100, 71, 58]);
    }
}
