//! The default tensor library: candle on the CPU, with own kernels where its operations are slow or lack a backward.

mod operations;

use candle_core::{CpuStorage, D, DType, Device, Storage, Tensor, Var};
// Named for its features alone, which candle does not set.
use gemm as _;

use self::operations::{
    AddRows, CrossEntropy, Gelu, LayerNorm, MaxPool, Relu, SoftMax, Weighted, with_values,
};
use super::{EPSILON, Error, Library, check_labels, head_size, kernels};

/// Candle on the CPU. It computes on rayon's global threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candle;

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Library(error.to_string())
    }
}

/// Rows of the last dimension.
fn rows(x: &Tensor) -> Result<Tensor, candle_core::Error> {
    x.reshape(((), x.dim(D::Minus1)?))
}

/// The shape of `x` with another last dimension.
fn with_last(x: &Tensor, last: usize) -> Vec<usize> {
    let mut shape = x.dims().to_vec();
    shape.pop();
    shape.push(last);
    shape
}

impl Library for Candle {
    type Tensor = Tensor;

    fn constant(&self, values: &[f32], shape: &[usize]) -> Result<Tensor, Error> {
        Ok(Tensor::from_slice(values, shape, &Device::Cpu)?)
    }

    fn leaf(&self, values: &[f32], shape: &[usize]) -> Result<Tensor, Error> {
        Ok(Var::from_slice(values, shape, &Device::Cpu)?.into_inner())
    }

    fn cut(&self, tensor: &Tensor) -> Result<Tensor, Error> {
        Ok(Var::from_tensor(&tensor.detach())?.into_inner())
    }

    fn shape(&self, tensor: &Tensor) -> Vec<usize> {
        tensor.dims().to_vec()
    }

    fn read(&self, tensor: &Tensor, target: &mut [f32]) -> Result<(), Error> {
        let tensor = tensor.contiguous()?;
        let (storage, layout) = tensor.storage_and_layout();
        match (&*storage, layout.contiguous_offsets()) {
            (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) if end - start == target.len() => {
                target.copy_from_slice(&values[start..end]);
                Ok(())
            }
            _ => Err(Error::Library(format!("cannot read a tensor of shape {:?}", tensor.shape()))),
        }
    }

    fn gradients(
        &self,
        output: &Tensor,
        seed: Option<&Tensor>,
        leaves: &[&Tensor],
    ) -> Result<Vec<Option<Tensor>>, Error> {
        let store = match seed {
            Some(seed) => output.apply_op1(Weighted(seed.detach()))?.backward()?,
            None => output.backward()?,
        };
        Ok(leaves.iter().map(|leaf| store.get(leaf).cloned()).collect())
    }

    fn reshape(&self, x: &Tensor, shape: &[usize]) -> Result<Tensor, Error> {
        Ok(x.reshape(shape)?)
    }

    fn add(&self, x: &Tensor, y: &Tensor) -> Result<Tensor, Error> {
        Ok(x.add(y)?)
    }

    fn add_to_each(&self, x: &Tensor, y: &Tensor) -> Result<Tensor, Error> {
        if !x.dims().ends_with(y.dims()) {
            let message = format!("shape {:?} does not end with {:?}", x.shape(), y.shape());
            return Err(Error::Library(message));
        }
        Ok(x.contiguous()?.apply_op2(&y.contiguous()?, AddRows)?)
    }

    fn linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, Error> {
        let product = rows(x)?.matmul(&weight.t()?)?;
        let product = match bias {
            Some(bias) => self.add_to_each(&product, bias)?,
            None => product,
        };
        Ok(product.reshape(with_last(x, weight.dim(0)?))?)
    }

    fn relu(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(x.contiguous()?.apply_op1(Relu)?)
    }

    fn gelu(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(x.contiguous()?.apply_op1(Gelu)?)
    }

    fn layer_norm(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor, Error> {
        let width = x.dim(D::Minus1)?;
        if weight.dims() != [width] || bias.dims() != [width] {
            let message = format!("a layer norm of {:?} does not fit rows of {width}", weight.shape());
            return Err(Error::Library(message));
        }
        Ok(x.contiguous()?.apply_op3(weight, bias, LayerNorm { epsilon: EPSILON })?)
    }

    fn attention(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        heads: usize,
        causal: bool,
    ) -> Result<Tensor, Error> {
        let (batch, time, width) = queries.dims3()?;
        let size = head_size(width, heads)?;
        let split = |x: &Tensor| x.reshape((batch, (), heads, size))?.transpose(1, 2)?.contiguous();
        let (queries, keys, values) = (split(queries)?, split(keys)?, split(values)?);
        let softmax = SoftMax { factor: 1.0 / (size as f32).sqrt(), causal };
        let weights = queries.matmul(&keys.t()?)?.apply_op1(softmax)?;
        Ok(weights.matmul(&values)?.transpose(1, 2)?.contiguous()?.reshape((batch, time, width))?)
    }

    fn embedding(&self, table: &Tensor, indices: &[u32], shape: [usize; 2]) -> Result<Tensor, Error> {
        let [batch, time] = shape;
        let indices = Tensor::from_slice(indices, batch * time, &Device::Cpu)?;
        Ok(table.index_select(&indices, 0)?.reshape((batch, time, table.dim(1)?))?)
    }

    fn convolution(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor, Error> {
        let (outputs, _, size, _) = weight.dims4()?;
        let product = x.conv2d(weight, size / 2, 1, 1, 1)?;
        Ok(product.broadcast_add(&bias.reshape((1, outputs, 1, 1))?)?)
    }

    fn max_pool(&self, x: &Tensor, size: usize) -> Result<Tensor, Error> {
        // The library's own backward gives each largest element a share of the gradient that falls with the square's size.
        Ok(x.contiguous()?.apply_op1(MaxPool { size })?)
    }

    fn patches(&self, x: &Tensor, size: usize) -> Result<Tensor, Error> {
        let (batch, channels, height, width) = x.dims4()?;
        let (down, across) = (height / size, width / size);
        let squares = x.reshape(&[batch, channels, down, size, across, size][..])?;
        let squares = squares.permute([0, 2, 4, 1, 3, 5])?.contiguous()?;
        Ok(squares.reshape((batch, down * across, channels * size * size))?)
    }

    fn mean_over_time(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(x.mean(1)?)
    }

    fn cross_entropy(&self, scores: &Tensor, labels: &[u32]) -> Result<Tensor, Error> {
        check_labels(scores.dims(), labels)?;
        Ok(scores.contiguous()?.apply_op1(CrossEntropy { labels: labels.into() })?)
    }

    fn correct(&self, scores: &Tensor, labels: &[u32]) -> Result<usize, Error> {
        check_labels(scores.dims(), labels)?;
        let scores = scores.to_dtype(DType::F32)?.contiguous()?;
        Ok(with_values(&scores, |scores| kernels::correct(scores, labels))?)
    }
}
