//! Parameters as a model declares them, and their initial values.

use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};

use crate::sampler::generator;

/// Stream of the first initial parameter among the streams of a seed; further parameters count down from it.
const INITIALIZATION: u64 = u64::MAX;

/// What a parameter starts as.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// Uniform between minus and plus this bound.
    Uniform(f32),
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
}

impl Initial {
    /// He et al. 2015 for layers that ReLU follows, uniform form.
    pub fn he(inputs: usize) -> Self {
        Self::Uniform((6.0 / inputs.max(1) as f32).sqrt())
    }
}

/// One parameter of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name, unique in the model, such as `blocks.0.attention.query.weight`.
    pub name: String,
    /// Its shape, the slowest dimension first.
    pub shape: Vec<usize>,
    /// What it starts as.
    pub initial: Initial,
    /// Whether weight decay applies; usually not to biases and norms.
    pub decays: bool,
}

impl Parameter {
    /// A weight, to which weight decay applies.
    pub fn weight(name: impl Into<String>, shape: &[usize], initial: Initial) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), initial, decays: true }
    }

    /// A bias or another vector without weight decay.
    pub fn vector(name: impl Into<String>, length: usize, initial: Initial) -> Self {
        Self { name: name.into(), shape: vec![length], initial, decays: false }
    }

    /// Number of its elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Fills `values` with what the parameter, the `index`th of its model, starts as: the same on every rank.
    pub(crate) fn initialize(&self, seed: u64, index: usize, values: &mut [f32]) {
        let mut random = generator(seed, INITIALIZATION - index as u64);
        match self.initial {
            Initial::Zeros => values.fill(0.0),
            Initial::Ones => values.fill(1.0),
            Initial::Uniform(bound) => {
                for value in values {
                    *value = random.random_range(-bound..=bound);
                }
            }
            Initial::Normal(deviation) => {
                let mut draw = || -> f32 { StandardNormal.sample(&mut random) };
                for value in values {
                    *value = deviation * draw();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initial(initial: Initial, seed: u64, index: usize) -> Vec<f32> {
        let mut values = vec![9.0; 1000];
        Parameter::weight("w", &[10, 100], initial).initialize(seed, index, &mut values);
        values
    }

    #[test]
    fn initial_values_depend_on_seed_and_place() {
        let normal = |seed, index| initial(Initial::Normal(0.02), seed, index);
        assert_eq!(normal(1, 0), normal(1, 0));
        assert_ne!(normal(1, 0), normal(2, 0));
        assert_ne!(normal(1, 0), normal(1, 1));
        let mean_square = normal(1, 0).iter().map(|value| value * value).sum::<f32>() / 1000.0;
        assert!((mean_square.sqrt() - 0.02).abs() < 0.002, "{mean_square}");
        let bound = (6.0_f32 / 100.0).sqrt();
        assert!(initial(Initial::he(100), 1, 0).iter().all(|value| value.abs() <= bound));
        assert!(initial(Initial::Zeros, 1, 0) == [0.0; 1000]);
        assert!(initial(Initial::Ones, 1, 0) == [1.0; 1000]);
    }
}
