//! The shape of a network: its layers and where their parameters lie in one flat vector.

use std::ops::Range;

use rand::RngExt;

use crate::sampler::generator;

/// Stream of the initial parameters among the streams of a seed.
const INITIALIZATION: u64 = u64::MAX;

/// A multilayer perceptron from inputs to classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    /// Inputs, hidden sizes, classes.
    sizes: Vec<usize>,
}

/// One parameter of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// Its elements in the flat vector.
    pub(crate) place: Range<usize>,
}

impl Network {
    pub(crate) fn new(inputs: usize, hidden: &[usize], classes: usize) -> Self {
        let sizes = std::iter::once(inputs).chain(hidden.iter().copied()).chain([classes]).collect();
        Self { sizes }
    }

    pub(crate) fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// Every parameter: a weight (outputs × inputs) and a bias for each layer.
    pub(crate) fn parameters(&self) -> Vec<Parameter> {
        let mut next = 0;
        let mut parameters = Vec::new();
        for (layer, sizes) in self.sizes.windows(2).enumerate() {
            let (inputs, outputs) = (sizes[0], sizes[1]);
            for (kind, shape) in [("weight", vec![outputs, inputs]), ("bias", vec![outputs])] {
                let end = next + shape.iter().product::<usize>();
                parameters.push(Parameter {
                    name: format!("layers.{layer}.{kind}"),
                    shape,
                    place: next..end,
                });
                next = end;
            }
        }
        parameters
    }

    /// Elements of all parameters together.
    pub(crate) fn parameter_count(&self) -> usize {
        self.parameters().last().map_or(0, |parameter| parameter.place.end)
    }

    /// Initial parameters: weights uniform within the bound of He et al. for ReLU, biases zero.
    pub(crate) fn initial_parameters(&self, seed: u64) -> Vec<f32> {
        let mut random = generator(seed, INITIALIZATION);
        let mut values = vec![0.0; self.parameter_count()];
        for parameter in self.parameters() {
            if let [_, inputs] = parameter.shape[..] {
                let bound = (6.0 / inputs as f32).sqrt();
                for value in &mut values[parameter.place] {
                    *value = random.random_range(-bound..bound);
                }
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_lie_one_behind_the_other() {
        let network = Network::new(64, &[32], 10);
        let parameters = network.parameters();
        let names: Vec<&str> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
        assert_eq!(names, ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]);
        assert_eq!(parameters[1].place, 64 * 32..64 * 32 + 32);
        assert_eq!(network.parameter_count(), 64 * 32 + 32 + 32 * 10 + 10);
    }

    #[test]
    fn initial_parameters_depend_on_the_seed_alone() {
        let network = Network::new(8, &[4], 2);
        assert_eq!(network.initial_parameters(1), network.initial_parameters(1));
        assert_ne!(network.initial_parameters(1), network.initial_parameters(2));
        assert!(network.initial_parameters(1).iter().all(|value| value.abs() < 1.3));
    }
}
