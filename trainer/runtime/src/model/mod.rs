//! Models as chains of blocks.
//!
//! A block is the unit in which the trainer computes, communicates and remembers: its parameters come together before
//! it runs, and its gradients are complete, and on their way to the other ranks, while the block before it is still
//! computed. Models are written against [`Library`] and run on every tensor library.

mod cnn;
mod gpt;
mod layers;
mod mlp;
mod parameter;
mod vit;

use std::marker::PhantomData;

pub use cnn::Cnn;
pub use gpt::Gpt;
pub use mlp::Mlp;
pub use parameter::{Initial, Parameter};
pub use vit::Vit;

use crate::tensor::{Error, Library};

/// What enters the first block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Input<'a> {
    /// Samples of numbers: `shape` is that of one sample.
    Numbers {
        /// The samples, one behind the other.
        values: &'a [f32],
        /// The shape of one sample.
        shape: &'a [usize],
    },
    /// Sequences of tokens.
    Tokens {
        /// The sequences, one behind the other.
        tokens: &'a [u32],
        /// Tokens of one sequence.
        length: usize,
    },
}

/// One block of a chain. The first takes an [`Input`], every other what the one before it gave.
pub trait Block<L: Library>: Send {
    /// Its parameters, in the order in which [`forward`](Self::forward) gets them.
    fn parameters(&self) -> Vec<Parameter>;

    /// Computes the block. `input` is there for the first block, `x` for every other.
    fn forward(&self, library: &L, parameters: &[L::Tensor], x: Feed<'_, L>) -> Result<L::Tensor, Error>;
}

/// What a block is fed with.
#[derive(Debug)]
pub enum Feed<'a, L: Library> {
    /// The samples, for the first block.
    Input(Input<'a>),
    /// What the block before gave.
    Tensor(&'a L::Tensor),
}

impl<L: Library> Feed<'_, L> {
    /// The tensor that it is, or that its numbers are.
    pub fn tensor(&self, library: &L) -> Result<L::Tensor, Error> {
        match self {
            Self::Tensor(tensor) => Ok((*tensor).clone()),
            Self::Input(Input::Numbers { values, shape }) => {
                let size = shape.iter().product::<usize>().max(1);
                let shape: Vec<usize> =
                    std::iter::once(values.len() / size).chain(shape.iter().copied()).collect();
                library.constant(values, &shape)
            }
            Self::Input(Input::Tokens { .. }) => {
                Err(Error::Library("a block of numbers was fed tokens".into()))
            }
        }
    }

    /// The tokens that it is, and their number in a sequence.
    pub fn tokens(&self) -> Result<(&[u32], usize), Error> {
        match self {
            Self::Input(Input::Tokens { tokens, length }) => Ok((tokens, *length)),
            _ => Err(Error::Library("a block of tokens was fed numbers".into())),
        }
    }
}

/// A model: blocks in the order in which they run. The last gives scores, one for each class, along its last dimension.
pub struct Model<L: Library> {
    blocks: Vec<Box<dyn Block<L>>>,
    library: PhantomData<L>,
}

impl<L: Library> Model<L> {
    /// A model of these blocks.
    pub fn new(blocks: Vec<Box<dyn Block<L>>>) -> Self {
        Self { blocks, library: PhantomData }
    }

    /// Its blocks, in the order in which they run.
    pub fn blocks(&self) -> &[Box<dyn Block<L>>] {
        &self.blocks
    }

    /// All parameters, block by block.
    pub fn parameters(&self) -> Vec<Parameter> {
        self.blocks.iter().flat_map(|block| block.parameters()).collect()
    }
}
