//! The kernels as operations of candle, each with its backward.

use std::sync::Arc;

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail,
};

use crate::tensor::kernels::{self, Squares};

/// The values of contiguous `f32` storage.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!("expected contiguous f32 values"),
    }
}

/// Lends the values of a contiguous tensor.
pub(super) fn with_values<R>(tensor: &Tensor, work: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(work(values(storage, layout)?)),
        _ => bail!("expected a tensor on the CPU"),
    }
}

/// A tensor of the same shape from two tensors' values.
fn like(
    shape: &Tensor,
    x: &Tensor,
    y: &Tensor,
    work: impl FnOnce(&[f32], &[f32]) -> Vec<f32>,
) -> Result<Tensor> {
    let (x, y) = (x.contiguous()?, y.contiguous()?);
    let out = with_values(&x, |x| with_values(&y, |y| work(x, y)))??;
    Tensor::from_vec(out, shape.shape(), shape.device())
}

fn stored(values: Vec<f32>, shape: &Shape) -> (CpuStorage, Shape) {
    (CpuStorage::F32(values), shape.clone())
}

/// Zero, whose gradient is the tensor that it holds: backpropagation that starts with given gradients.
pub(super) struct Weighted(pub(super) Tensor);

impl CustomOp1 for Weighted {
    fn name(&self) -> &'static str {
        "weighted"
    }

    fn cpu_fwd(&self, _: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        if layout.shape() != self.0.shape() {
            bail!("a gradient of shape {:?} for a result of shape {:?}", self.0.shape(), layout.shape());
        }
        Ok(stored(vec![0.0], &Shape::from(())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}

pub(super) struct Relu;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(stored(kernels::relu(values(storage, layout)?), layout.shape()))
    }

    fn bwd(&self, x: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        like(x, result, gradient, kernels::relu_backward).map(Some)
    }
}

pub(super) struct Gelu;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(stored(kernels::gelu(values(storage, layout)?), layout.shape()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        like(x, x, gradient, kernels::gelu_backward).map(Some)
    }
}

/// Softmax along the last dimension; `causal` along square matrices.
pub(super) struct SoftMax {
    pub(super) factor: f32,
    pub(super) causal: bool,
}

fn last(shape: &Shape) -> usize {
    shape.dims().last().copied().unwrap_or(1)
}

impl CustomOp1 for SoftMax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let width = last(layout.shape());
        if self.causal && !layout.dims().ends_with(&[width, width]) {
            bail!("causal attention over {:?}, which is not square", layout.shape());
        }
        Ok(stored(
            kernels::softmax(values(storage, layout)?, width, self.factor, self.causal),
            layout.shape(),
        ))
    }

    fn bwd(&self, x: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let width = last(result.shape());
        like(x, result, gradient, |result, gradient| {
            kernels::softmax_backward(result, gradient, width, self.factor)
        })
        .map(Some)
    }
}

/// The second tensor added to each row of the first.
pub(super) struct AddRows;

impl CustomOp2 for AddRows {
    fn name(&self) -> &'static str {
        "add-rows"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        row: &CpuStorage,
        row_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok(stored(kernels::add_rows(values(x, x_layout)?, values(row, row_layout)?), x_layout.shape()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        row: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let sums = with_values(&gradient, |gradient| kernels::sum_rows(gradient, row.elem_count()))?;
        let sums = Tensor::from_vec(sums, row.shape(), row.device())?;
        Ok((Some(gradient), Some(sums)))
    }
}

pub(super) struct LayerNorm {
    pub(super) epsilon: f32,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (weight, bias) = (values(weight, weight_layout)?, values(bias, bias_layout)?);
        Ok(stored(kernels::layer_norm(values(x, x_layout)?, weight, bias, self.epsilon), x_layout.shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (x, gradient) = (x.contiguous()?, gradient.contiguous()?);
        let gradients = with_values(&x, |x| {
            with_values(weight, |weight| {
                with_values(&gradient, |gradient| {
                    kernels::layer_norm_backward(x, weight, gradient, self.epsilon)
                })
            })
        })???;
        let made =
            |values: Vec<f32>, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device()).map(Some);
        Ok((made(gradients.x, &x)?, made(gradients.weight, weight)?, made(gradients.bias, weight)?))
    }
}

/// Mean cross-entropy of rows against labels.
pub(super) struct CrossEntropy {
    pub(super) labels: Arc<[u32]>,
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let loss = kernels::cross_entropy(values(storage, layout)?, &self.labels);
        Ok(stored(vec![loss], &Shape::from(())))
    }

    fn bwd(&self, scores: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let factor = gradient.to_scalar::<f32>()?;
        like(scores, scores, scores, |scores, _| {
            kernels::cross_entropy_backward(scores, &self.labels, factor)
        })
        .map(Some)
    }
}

/// The largest element of each square of an image.
pub(super) struct MaxPool {
    pub(super) size: usize,
}

impl MaxPool {
    fn squares(&self, shape: &Shape) -> Result<Squares> {
        let (_, _, height, width) = shape.dims4()?;
        match self.size {
            0 => bail!("squares of no size"),
            size => Ok(Squares { height, width, size }),
        }
    }
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max-pool"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let squares = self.squares(layout.shape())?;
        let (images, channels, ..) = layout.shape().dims4()?;
        let (down, across) = squares.counts();
        let shape = Shape::from((images, channels, down, across));
        Ok(stored(kernels::max_pool(values(storage, layout)?, squares), &shape))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let squares = self.squares(x.shape())?;
        like(x, x, gradient, |x, gradient| kernels::max_pool_backward(x, gradient, squares)).map(Some)
    }
}
