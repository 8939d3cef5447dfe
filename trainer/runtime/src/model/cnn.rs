use crate::model::layers::{Declaration, Taken};
use crate::model::{Block, Feed, Initial, Model, Parameter};
use crate::tensor::{Error, Library};

/// A convolutional network: stages of a 3 × 3 convolution, ReLU and pooling by 2, then a linear layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cnn {
    /// Channels, height and width of an image.
    pub image: [usize; 3],
    /// Channels after each stage; each stage halves height and width.
    pub channels: Vec<usize>,
    /// Number of classes.
    pub classes: usize,
}

impl Cnn {
    /// The model on a library: a block for each stage, and one for the output.
    pub fn build<L: Library>(&self) -> Model<L> {
        let mut blocks: Vec<Box<dyn Block<L>>> = Vec::new();
        let [mut inputs, mut height, mut width] = self.image;
        for (index, &outputs) in self.channels.iter().enumerate() {
            blocks.push(Box::new(Stage { index, inputs, outputs }));
            (inputs, height, width) = (outputs, height / 2, width / 2);
        }
        blocks.push(Box::new(Output { inputs: inputs * height * width, classes: self.classes }));
        Model::new(blocks)
    }
}

struct Stage {
    index: usize,
    inputs: usize,
    outputs: usize,
}

impl<L: Library> Block<L> for Stage {
    fn parameters(&self) -> Vec<Parameter> {
        Declaration::of(format!("stages.{}", self.index))
            .weight("", &[self.outputs, self.inputs, 3, 3], Initial::he(9 * self.inputs))
            .bias("", self.outputs)
            .finish()
    }

    fn forward(&self, library: &L, parameters: &[L::Tensor], x: Feed<'_, L>) -> Result<L::Tensor, Error> {
        let mut taken = Taken::<L>::from(parameters);
        let product = library.convolution(&x.tensor(library)?, taken.one()?, taken.one()?)?;
        library.max_pool(&library.relu(&product)?, 2)
    }
}

struct Output {
    inputs: usize,
    classes: usize,
}

impl<L: Library> Block<L> for Output {
    fn parameters(&self) -> Vec<Parameter> {
        Declaration::of("output").linear("", self.classes, self.inputs, Initial::he(self.inputs)).finish()
    }

    fn forward(&self, library: &L, parameters: &[L::Tensor], x: Feed<'_, L>) -> Result<L::Tensor, Error> {
        let x = x.tensor(library)?;
        let batch = library.shape(&x).first().copied().unwrap_or(0);
        let flat = library.reshape(&x, &[batch, self.inputs])?;
        Taken::<L>::from(parameters).linear(library, &flat)
    }
}
