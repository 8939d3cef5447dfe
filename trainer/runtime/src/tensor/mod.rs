//! What a model needs of a tensor library: a few operations with gradients, and values in and out as flat slices.
//!
//! Models are written once against [`Library`]; the rest of the trainer knows no library. An adapter does each
//! operation in the fastest way its library has.

mod candle;
mod kernels;
#[cfg(feature = "libtorch")]
mod torch;

pub use candle::Candle;
#[cfg(feature = "libtorch")]
pub use torch::{Torch, set_torch_threads};

/// Added to the variance in layer normalisation.
const EPSILON: f32 = 1e-5;

/// Why a tensor library failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The library refused an operation, mostly for shapes that do not fit.
    #[error("the tensor library failed: {0}")]
    Library(String),
    /// A parameter does not take part in the result, or an operation on its way has no backward.
    #[error("parameter {0} received no gradient")]
    NoGradient(String),
}

/// A tensor library with reverse-mode differentiation, whose values are `f32`.
///
/// Shapes are given with the slowest dimension first. Operations panic on nothing: shapes that do not fit are errors.
pub trait Library: Clone + Send + 'static {
    /// A tensor that remembers how it came about; cheap to clone.
    type Tensor: Clone;

    /// A tensor without a history.
    fn constant(&self, values: &[f32], shape: &[usize]) -> Result<Self::Tensor, Error>;

    /// A tensor at which [`gradients`](Self::gradients) can be asked for.
    fn leaf(&self, values: &[f32], shape: &[usize]) -> Result<Self::Tensor, Error>;

    /// The same values as a leaf without a history.
    fn cut(&self, tensor: &Self::Tensor) -> Result<Self::Tensor, Error>;

    /// The shape of a tensor.
    fn shape(&self, tensor: &Self::Tensor) -> Vec<usize>;

    /// Copies the values of a tensor out; `target` must hold as many.
    fn read(&self, tensor: &Self::Tensor, target: &mut [f32]) -> Result<(), Error>;

    /// The gradients of `output` at leaves: of the sum of its elements weighted with `seed`, of the same shape, or of
    /// `output` itself when it is a single number. `None` for a leaf that it does not depend on.
    fn gradients(
        &self,
        output: &Self::Tensor,
        seed: Option<&Self::Tensor>,
        leaves: &[&Self::Tensor],
    ) -> Result<Vec<Option<Self::Tensor>>, Error>;

    /// The same values in another shape.
    fn reshape(&self, x: &Self::Tensor, shape: &[usize]) -> Result<Self::Tensor, Error>;

    /// `x + y` of equal shapes.
    fn add(&self, x: &Self::Tensor, y: &Self::Tensor) -> Result<Self::Tensor, Error>;

    /// `y` added to the last dimensions of `x`, whose shape ends with that of `y`.
    fn add_to_each(&self, x: &Self::Tensor, y: &Self::Tensor) -> Result<Self::Tensor, Error>;

    /// `x · weightᵀ + bias` along the last dimension of `x`; `weight` has (outputs, inputs).
    fn linear(
        &self,
        x: &Self::Tensor,
        weight: &Self::Tensor,
        bias: Option<&Self::Tensor>,
    ) -> Result<Self::Tensor, Error>;

    /// The larger of each element and zero.
    fn relu(&self, x: &Self::Tensor) -> Result<Self::Tensor, Error>;

    /// GELU in its tanh form (Hendrycks & Gimpel 2016).
    fn gelu(&self, x: &Self::Tensor) -> Result<Self::Tensor, Error>;

    /// Layer normalisation along the last dimension (Ba et al. 2016), with 10⁻⁵ added to the variance.
    fn layer_norm(
        &self,
        x: &Self::Tensor,
        weight: &Self::Tensor,
        bias: &Self::Tensor,
    ) -> Result<Self::Tensor, Error>;

    /// Scaled dot-product attention (Vaswani et al. 2017) of (batch, time, heads · size) each; with `causal`, no time
    /// sees a later one.
    fn attention(
        &self,
        queries: &Self::Tensor,
        keys: &Self::Tensor,
        values: &Self::Tensor,
        heads: usize,
        causal: bool,
    ) -> Result<Self::Tensor, Error>;

    /// The rows of `table` (entries, size) that `indices` name, as (batch, time, size).
    fn embedding(
        &self,
        table: &Self::Tensor,
        indices: &[u32],
        shape: [usize; 2],
    ) -> Result<Self::Tensor, Error>;

    /// Convolution of (batch, channels, height, width) with (outputs, channels, size, size), with zeros around that keep
    /// height and width for odd sizes.
    fn convolution(
        &self,
        x: &Self::Tensor,
        weight: &Self::Tensor,
        bias: &Self::Tensor,
    ) -> Result<Self::Tensor, Error>;

    /// The largest of each square of `size`; what does not fill one is left out.
    fn max_pool(&self, x: &Self::Tensor, size: usize) -> Result<Self::Tensor, Error>;

    /// (batch, channels, height, width) as (batch, squares, channels · size · size): the squares of an image, row by
    /// row. Both sides must be multiples of `size`.
    fn patches(&self, x: &Self::Tensor, size: usize) -> Result<Self::Tensor, Error>;

    /// The mean over the second of three dimensions.
    fn mean_over_time(&self, x: &Self::Tensor) -> Result<Self::Tensor, Error>;

    /// The mean over all rows of `-ln softmax(row)[label]`, in nats; rows lie along the last dimension.
    fn cross_entropy(&self, scores: &Self::Tensor, labels: &[u32]) -> Result<Self::Tensor, Error>;

    /// Rows whose largest score stands at the label.
    fn correct(&self, scores: &Self::Tensor, labels: &[u32]) -> Result<usize, Error>;
}

/// Whether there is a label for each row of scores of this shape, and a score for each label.
fn check_labels(scores: &[usize], labels: &[u32]) -> Result<(), Error> {
    let classes = scores.last().copied().unwrap_or(0);
    if scores.iter().product::<usize>() != classes * labels.len() || labels.is_empty() {
        let message = format!("{} labels do not fit scores of shape {scores:?}", labels.len());
        return Err(Error::Library(message));
    }
    match labels.iter().find(|label| **label as usize >= classes) {
        Some(label) => Err(Error::Library(format!("label {label} is not one of {classes} classes"))),
        None => Ok(()),
    }
}

/// The size of each of `heads` heads of attention that make up `width`.
fn head_size(width: usize, heads: usize) -> Result<usize, Error> {
    if heads > 0 && width.is_multiple_of(heads) {
        return Ok(width / heads);
    }
    Err(Error::Library(format!("{heads} heads do not divide a width of {width}")))
}
