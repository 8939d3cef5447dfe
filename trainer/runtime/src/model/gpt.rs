use crate::model::layers::{DEVIATION, Declaration, Taken, Transformer};
use crate::model::{Block, Feed, Model, Parameter};
use crate::tensor::{Error, Library};

/// A decoder-only transformer in the form of GPT-2 (Radford et al. 2019): learned positions, norms before attention and
/// perceptron, and an output layer of its own. Scores are given for every place of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpt {
    /// Number of different tokens.
    pub vocabulary: usize,
    /// Longest sequence.
    pub context: usize,
    /// Size of the residual stream; a multiple of `heads`.
    pub width: usize,
    /// Transformer blocks.
    pub depth: usize,
    /// Heads of the attention.
    pub heads: usize,
}

impl Gpt {
    /// The model on a library: a block for the embeddings, one for each transformer block, one for the output.
    pub fn build<L: Library>(&self) -> Model<L> {
        let transformer =
            Transformer { width: self.width, heads: self.heads, depth: self.depth, causal: true };
        let mut blocks: Vec<Box<dyn Block<L>>> = vec![Box::new(Embedding(self.clone()))];
        blocks.extend(transformer.blocks());
        blocks.push(Box::new(Output(self.clone())));
        Model::new(blocks)
    }
}

struct Embedding(Gpt);

impl<L: Library> Block<L> for Embedding {
    fn parameters(&self) -> Vec<Parameter> {
        Declaration::of("embedding")
            .weight("tokens", &[self.0.vocabulary, self.0.width], DEVIATION)
            .weight("positions", &[self.0.context, self.0.width], DEVIATION)
            .finish()
    }

    fn forward(&self, library: &L, parameters: &[L::Tensor], x: Feed<'_, L>) -> Result<L::Tensor, Error> {
        let (tokens, length) = x.tokens()?;
        let mut taken = Taken::<L>::from(parameters);
        let (table, positions) = (taken.one()?, taken.one()?);
        let vocabulary = self.0.vocabulary as u32;
        if let Some(token) = tokens.iter().find(|token| **token >= vocabulary) {
            return Err(Error::Library(format!("token {token} is outside a vocabulary of {vocabulary}")));
        }
        if length > self.0.context || length == 0 {
            let message =
                format!("a sequence of {length} tokens does not fit a context of {}", self.0.context);
            return Err(Error::Library(message));
        }
        let embedded = library.embedding(table, tokens, [tokens.len() / length, length])?;
        let places: Vec<u32> = (0..length as u32).collect();
        let positions = library.embedding(positions, &places, [1, length])?;
        library.add_to_each(&embedded, &library.reshape(&positions, &[length, self.0.width])?)
    }
}

struct Output(Gpt);

impl<L: Library> Block<L> for Output {
    fn parameters(&self) -> Vec<Parameter> {
        Declaration::of("output")
            .norm("norm", self.0.width)
            .weight("", &[self.0.vocabulary, self.0.width], DEVIATION)
            .finish()
    }

    fn forward(&self, library: &L, parameters: &[L::Tensor], x: Feed<'_, L>) -> Result<L::Tensor, Error> {
        let mut taken = Taken::<L>::from(parameters);
        let normal = taken.norm(library, &x.tensor(library)?)?;
        library.linear(&normal, taken.one()?, None)
    }
}
