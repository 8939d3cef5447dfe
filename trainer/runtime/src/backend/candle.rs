//! The default tensor library: candle on the CPU. The only module that names it.

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, D, Device, Storage, Tensor, Var};

use super::{BatchOutcome, Error};
use crate::network::{Network, Parameter};

/// A network whose parameters are candle variables.
#[derive(Debug)]
pub(crate) struct CandleNetwork {
    parameters: Vec<(Parameter, Var)>,
    inputs: usize,
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Library(error.to_string())
    }
}

impl CandleNetwork {
    /// The network with all parameters zero.
    pub(crate) fn new(network: &Network) -> Result<Self, Error> {
        let parameters = network
            .parameters()
            .into_iter()
            .map(|parameter| {
                let variable = Var::zeros(&parameter.shape[..], candle_core::DType::F32, &Device::Cpu)?;
                Ok((parameter, variable))
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self { parameters, inputs: network.sizes()[0] })
    }

    /// Takes over the parameters of a flat vector.
    pub(crate) fn load(&mut self, values: &[f32]) -> Result<(), Error> {
        for (parameter, variable) in &self.parameters {
            let values =
                Tensor::from_slice(&values[parameter.place.clone()], &parameter.shape[..], &Device::Cpu)?;
            variable.set(&values)?;
        }
        Ok(())
    }

    /// Computes the loss of a batch and writes the gradient of every parameter to its place in `gradients`.
    pub(crate) fn gradients(
        &self,
        inputs: &[f32],
        labels: &[u32],
        gradients: &mut [f32],
    ) -> Result<BatchOutcome, Error> {
        let scores = self.scores(inputs, labels.len())?;
        let correct = correct(&scores, labels)?;
        let labels = Tensor::from_slice(labels, (labels.len(), 1), &Device::Cpu)?;
        let normalizer = scores.log_sum_exp(D::Minus1)?.unsqueeze(D::Minus1)?;
        let loss = (normalizer - scores.gather(&labels, D::Minus1)?)?.mean_all()?;
        let store = loss.backward()?;
        self.collect(&store, gradients)?;
        Ok(BatchOutcome { loss: loss.to_scalar()?, correct })
    }

    /// Counts the samples of a batch whose class comes out on top.
    pub(crate) fn evaluate(&self, inputs: &[f32], labels: &[u32]) -> Result<usize, Error> {
        if labels.is_empty() {
            return Ok(0);
        }
        correct(&self.scores(inputs, labels.len())?, labels)
    }

    fn scores(&self, inputs: &[f32], samples: usize) -> Result<Tensor, Error> {
        let mut values = Tensor::from_slice(inputs, (samples, self.inputs), &Device::Cpu)?;
        let mut layers = self.parameters.chunks_exact(2).peekable();
        while let Some(layer) = layers.next() {
            let [(_, weight), (_, bias)] = layer else { continue };
            values = values.matmul(&weight.t()?)?.broadcast_add(bias)?;
            if layers.peek().is_some() {
                values = values.relu()?;
            }
        }
        Ok(values)
    }

    /// A library can drop gradients without a word where an operation lacks its backward, so each is demanded.
    fn collect(&self, store: &GradStore, gradients: &mut [f32]) -> Result<(), Error> {
        for (parameter, variable) in &self.parameters {
            let gradient =
                store.get(variable.as_tensor()).ok_or_else(|| Error::NoGradient(parameter.name.clone()))?;
            let gradient = gradient.contiguous()?;
            let target = &mut gradients[parameter.place.clone()];
            let (storage, layout) = gradient.storage_and_layout();
            match (&*storage, layout.contiguous_offsets()) {
                (Storage::Cpu(CpuStorage::F32(values)), Some((start, end)))
                    if end - start == target.len() =>
                {
                    target.copy_from_slice(&values[start..end]);
                }
                _ => {
                    return Err(Error::Library(format!(
                        "the gradient of {} has another form",
                        parameter.name
                    )));
                }
            }
        }
        Ok(())
    }
}

fn correct(scores: &Tensor, labels: &[u32]) -> Result<usize, Error> {
    let best = scores.argmax(D::Minus1)?.to_vec1::<u32>()?;
    Ok(best.iter().zip(labels).filter(|(best, label)| best == label).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(network: &Network, values: &[f32]) -> CandleNetwork {
        let mut candle = CandleNetwork::new(network).unwrap();
        candle.load(values).unwrap();
        candle
    }

    #[test]
    fn gradients_match_finite_differences() {
        let network = Network::new(3, &[5, 4], 3);
        let inputs: Vec<f32> = (0..12).map(|i| (i as f32 * 0.7).sin()).collect();
        let labels = [0, 2, 1, 2];
        let values: Vec<f32> = network.initial_parameters(5).iter().map(|value| value + 0.05).collect();
        let mut gradients = vec![0.0; values.len()];
        loaded(&network, &values).gradients(&inputs, &labels, &mut gradients).unwrap();
        let loss = |values: &[f32]| {
            let mut unused = vec![0.0; values.len()];
            loaded(&network, values).gradients(&inputs, &labels, &mut unused).unwrap().loss
        };
        for place in 0..values.len() {
            let mut moved = values.clone();
            let nudge = 1e-2;
            moved[place] = values[place] + nudge;
            let above = loss(&moved);
            moved[place] = values[place] - nudge;
            let slope = (above - loss(&moved)) / (2.0 * nudge);
            assert!((slope - gradients[place]).abs() < 5e-3, "{place}: {slope} against {}", gradients[place]);
        }
    }

    #[test]
    fn a_parameter_outside_the_loss_is_named() {
        let network = Network::new(2, &[], 2);
        let candle = loaded(&network, &network.initial_parameters(0));
        let (_, bias) = &candle.parameters[1];
        let store = bias.as_tensor().sum_all().unwrap().backward().unwrap();
        let error = candle.collect(&store, &mut [0.0; 6]).unwrap_err();
        assert!(matches!(error, Error::NoGradient(name) if name == "layers.0.weight"));
    }
}
