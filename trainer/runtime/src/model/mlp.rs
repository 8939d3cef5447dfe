use crate::model::layers::{Declaration, Taken};
use crate::model::{Block, Feed, Initial, Model, Parameter};
use crate::tensor::{Error, Library};

/// A multilayer perceptron: linear layers with ReLU between them, each a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mlp {
    /// Inputs, hidden sizes, classes.
    pub sizes: Vec<usize>,
}

struct Layer {
    index: usize,
    inputs: usize,
    outputs: usize,
    is_last: bool,
}

impl Mlp {
    /// The model on a library.
    pub fn build<L: Library>(&self) -> Model<L> {
        let last = self.sizes.len().saturating_sub(2);
        let layer = |(index, sizes): (usize, &[usize])| -> Box<dyn Block<L>> {
            Box::new(Layer { index, inputs: sizes[0], outputs: sizes[1], is_last: index == last })
        };
        Model::new(self.sizes.windows(2).enumerate().map(layer).collect())
    }
}

impl<L: Library> Block<L> for Layer {
    fn parameters(&self) -> Vec<Parameter> {
        let declaration = Declaration::of(format!("layers.{}", self.index));
        declaration.linear("", self.outputs, self.inputs, Initial::he(self.inputs)).finish()
    }

    fn forward(&self, library: &L, parameters: &[L::Tensor], x: Feed<'_, L>) -> Result<L::Tensor, Error> {
        let x = x.tensor(library)?;
        let product = Taken::<L>::from(parameters).linear(library, &x)?;
        if self.is_last { Ok(product) } else { library.relu(&product) }
    }
}
