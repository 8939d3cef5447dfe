use crate::model::layers::{DEVIATION, Declaration, Taken, Transformer};
use crate::model::{Block, Feed, Model, Parameter};
use crate::tensor::{Error, Library};

/// A vision transformer (Dosovitskiy et al. 2021), with the mean over all patches in place of a class token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vit {
    /// Channels, height and width of an image.
    pub image: [usize; 3],
    /// Side of a square patch; divides height and width.
    pub patch: usize,
    /// Size of the residual stream; a multiple of `heads`.
    pub width: usize,
    /// Transformer blocks.
    pub depth: usize,
    /// Heads of the attention.
    pub heads: usize,
    /// Number of classes.
    pub classes: usize,
}

impl Vit {
    /// The model on a library: a block for the patches, one for each transformer block, one for the output.
    pub fn build<L: Library>(&self) -> Model<L> {
        let transformer =
            Transformer { width: self.width, heads: self.heads, depth: self.depth, causal: false };
        let mut blocks: Vec<Box<dyn Block<L>>> = vec![Box::new(Patches(self.clone()))];
        blocks.extend(transformer.blocks());
        blocks.push(Box::new(Output(self.clone())));
        Model::new(blocks)
    }
}

struct Patches(Vit);

impl<L: Library> Block<L> for Patches {
    fn parameters(&self) -> Vec<Parameter> {
        let Vit { image: [channels, height, width], patch, width: size, .. } = self.0;
        let count = (height / patch) * (width / patch);
        Declaration::of("patches")
            .linear("", size, channels * patch * patch, DEVIATION)
            .weight("positions", &[count, size], DEVIATION)
            .finish()
    }

    fn forward(&self, library: &L, parameters: &[L::Tensor], x: Feed<'_, L>) -> Result<L::Tensor, Error> {
        let mut taken = Taken::<L>::from(parameters);
        let patches = library.patches(&x.tensor(library)?, self.0.patch)?;
        let embedded = taken.linear(library, &patches)?;
        library.add_to_each(&embedded, taken.one()?)
    }
}

struct Output(Vit);

impl<L: Library> Block<L> for Output {
    fn parameters(&self) -> Vec<Parameter> {
        let Vit { width, classes, .. } = self.0;
        Declaration::of("output").norm("norm", width).linear("", classes, width, DEVIATION).finish()
    }

    fn forward(&self, library: &L, parameters: &[L::Tensor], x: Feed<'_, L>) -> Result<L::Tensor, Error> {
        let mut taken = Taken::<L>::from(parameters);
        let normal = taken.norm(library, &x.tensor(library)?)?;
        taken.linear(library, &library.mean_over_time(&normal)?)
    }
}
