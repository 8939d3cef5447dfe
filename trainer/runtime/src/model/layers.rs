//! Layers that models share: their parameters, and what they compute.

use crate::model::parameter::{Initial, Parameter};
use crate::model::{Block, Feed};
use crate::tensor::{Error, Library};

/// Names and shapes of the parameters of a block, collected in the order of its forward.
#[derive(Debug, Default)]
pub(super) struct Declaration {
    prefix: String,
    parameters: Vec<Parameter>,
}

impl Declaration {
    pub(super) fn of(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), parameters: Vec::new() }
    }

    fn name(&self, layer: &str, kind: &str) -> String {
        [&self.prefix, layer, kind]
            .iter()
            .filter(|part| !part.is_empty())
            .map(|part| &**part)
            .collect::<Vec<_>>()
            .join(".")
    }

    /// A weight (outputs, inputs) and a bias.
    pub(super) fn linear(mut self, layer: &str, outputs: usize, inputs: usize, initial: Initial) -> Self {
        self.parameters.push(Parameter::weight(self.name(layer, "weight"), &[outputs, inputs], initial));
        self.parameters.push(Parameter::vector(self.name(layer, "bias"), outputs, Initial::Zeros));
        self
    }

    /// The weight and the bias of a normalisation.
    pub(super) fn norm(mut self, layer: &str, width: usize) -> Self {
        self.parameters.push(Parameter::vector(self.name(layer, "weight"), width, Initial::Ones));
        self.parameters.push(Parameter::vector(self.name(layer, "bias"), width, Initial::Zeros));
        self
    }

    /// A table or kernel.
    pub(super) fn weight(mut self, layer: &str, shape: &[usize], initial: Initial) -> Self {
        self.parameters.push(Parameter::weight(self.name(layer, "weight"), shape, initial));
        self
    }

    /// A vector that starts at zero.
    pub(super) fn bias(mut self, layer: &str, length: usize) -> Self {
        self.parameters.push(Parameter::vector(self.name(layer, "bias"), length, Initial::Zeros));
        self
    }

    pub(super) fn finish(self) -> Vec<Parameter> {
        self.parameters
    }
}

/// Takes a block's parameters one by one, in the order of their declaration.
pub(super) struct Taken<'a, L: Library> {
    rest: &'a [L::Tensor],
}

impl<'a, L: Library> Taken<'a, L> {
    pub(super) fn from(parameters: &'a [L::Tensor]) -> Self {
        Self { rest: parameters }
    }

    pub(super) fn one(&mut self) -> Result<&'a L::Tensor, Error> {
        let (first, rest) = self
            .rest
            .split_first()
            .ok_or_else(|| Error::Library("a block was given fewer parameters than it declares".into()))?;
        self.rest = rest;
        Ok(first)
    }

    pub(super) fn linear(&mut self, library: &L, x: &L::Tensor) -> Result<L::Tensor, Error> {
        let (weight, bias) = (self.one()?, self.one()?);
        library.linear(x, weight, Some(bias))
    }

    pub(super) fn norm(&mut self, library: &L, x: &L::Tensor) -> Result<L::Tensor, Error> {
        let (weight, bias) = (self.one()?, self.one()?);
        library.layer_norm(x, weight, bias)
    }
}

/// The shape of a transformer's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transformer {
    pub(super) width: usize,
    pub(super) heads: usize,
    /// Blocks of the whole model, which the initial values take into account.
    pub(super) depth: usize,
    pub(super) causal: bool,
}

/// Standard deviation of a transformer's initial weights (Radford et al. 2019).
pub(super) const DEVIATION: Initial = Initial::Normal(0.02);

impl Transformer {
    /// The parameters of one block.
    fn declare(&self, prefix: String) -> Vec<Parameter> {
        let width = self.width;
        // What adds to the residual stream starts smaller the more blocks do so.
        let residual = Initial::Normal(0.02 / (2.0 * self.depth.max(1) as f32).sqrt());
        Declaration::of(prefix)
            .norm("attention_norm", width)
            .linear("attention.query", width, width, DEVIATION)
            .linear("attention.key", width, width, DEVIATION)
            .linear("attention.value", width, width, DEVIATION)
            .linear("attention.output", width, width, residual)
            .norm("mlp_norm", width)
            .linear("mlp.up", 4 * width, width, DEVIATION)
            .linear("mlp.down", width, 4 * width, residual)
            .finish()
    }

    /// Attention and a two-layer perceptron, each behind a norm and beside the residual stream.
    fn forward<L: Library>(
        &self,
        library: &L,
        parameters: &[L::Tensor],
        x: &L::Tensor,
    ) -> Result<L::Tensor, Error> {
        let mut taken = Taken::<L>::from(parameters);
        let normal = taken.norm(library, x)?;
        let queries = taken.linear(library, &normal)?;
        let keys = taken.linear(library, &normal)?;
        let values = taken.linear(library, &normal)?;
        let seen = library.attention(&queries, &keys, &values, self.heads, self.causal)?;
        let x = library.add(x, &taken.linear(library, &seen)?)?;
        let normal = taken.norm(library, &x)?;
        let up = library.gelu(&taken.linear(library, &normal)?)?;
        library.add(&x, &taken.linear(library, &up)?)
    }
}

/// One block of a transformer's chain.
struct Layer {
    index: usize,
    transformer: Transformer,
}

impl Transformer {
    /// Its blocks, in the order in which they run.
    pub(super) fn blocks<L: Library>(self) -> impl Iterator<Item = Box<dyn Block<L>>> {
        (0..self.depth)
            .map(move |index| -> Box<dyn Block<L>> { Box::new(Layer { index, transformer: self }) })
    }
}

impl<L: Library> Block<L> for Layer {
    fn parameters(&self) -> Vec<Parameter> {
        self.transformer.declare(format!("blocks.{}", self.index))
    }

    fn forward(&self, library: &L, parameters: &[L::Tensor], x: Feed<'_, L>) -> Result<L::Tensor, Error> {
        self.transformer.forward(library, parameters, &x.tensor(library)?)
    }
}
