//! libtorch, through the crate tch, on the CPU or a GPU: its own operations, which all have their backward.

use std::rc::Rc;

use tch::{Cuda, Device, Kind, Reduction, TchError, Tensor};

use super::{EPSILON, Error, Library, check_labels, head_size};

/// libtorch. On the CPU it computes on the threads that `OMP_NUM_THREADS` allows.
#[derive(Clone, Copy, Debug)]
pub struct Torch {
    device: Device,
}

impl Torch {
    /// On the CPU.
    pub const fn cpu() -> Self {
        Self { device: Device::Cpu }
    }

    /// On a GPU, counted from 0 among those that `CUDA_VISIBLE_DEVICES` leaves.
    pub fn gpu(index: usize) -> Result<Self, Error> {
        let count = if Cuda::is_available() { Cuda::device_count().cast_unsigned() as usize } else { 0 };
        if index < count {
            return Ok(Self { device: Device::Cuda(index) });
        }
        let message = format!(
            "GPU {index} is not there: libtorch finds {count}; it must be built for CUDA, and the driver loaded"
        );
        Err(Error::Library(message))
    }
}

/// How many threads libtorch computes on, in the whole process.
pub fn set_torch_threads(threads: usize) {
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
}

impl From<TchError> for Error {
    fn from(error: TchError) -> Self {
        // Behind the first line comes where in libtorch it happened.
        Self::Library(error.to_string().lines().next().unwrap_or_default().to_owned())
    }
}

fn refused<T>(message: String) -> Result<T, Error> {
    Err(Error::Library(message))
}

fn sizes(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|size| *size as i64).collect()
}

fn shape(tensor: &Tensor) -> Vec<usize> {
    tensor.size().into_iter().map(|size| size as usize).collect()
}

fn last(x: &Tensor) -> i64 {
    x.size().last().copied().unwrap_or(1)
}

impl Torch {
    fn of<T: bytemuck::NoUninit>(self, values: &[T], kind: Kind, shape: &[usize]) -> Result<Tensor, Error> {
        let count: usize = shape.iter().product();
        if count != values.len() {
            return refused(format!("{} values do not fill a tensor of shape {shape:?}", values.len()));
        }
        let tensor = Tensor::f_from_data_size(bytemuck::cast_slice(values), &sizes(shape), kind)?;
        Ok(if self.device == Device::Cpu { tensor } else { tensor.f_to_device(self.device)? })
    }

    fn numbers(self, indices: &[u32]) -> Result<Tensor, Error> {
        let numbers: Vec<i64> = indices.iter().copied().map(i64::from).collect();
        self.of(&numbers, Kind::Int64, &[numbers.len()])
    }

    /// What `labels` say of the rows of `scores`, and those rows.
    fn rows(self, scores: &Tensor, labels: &[u32]) -> Result<(Tensor, Tensor), Error> {
        check_labels(&shape(scores), labels)?;
        Ok((scores.f_reshape([-1, last(scores)])?, self.numbers(labels)?))
    }
}

impl Library for Torch {
    type Tensor = Rc<Tensor>;

    fn constant(&self, values: &[f32], shape: &[usize]) -> Result<Rc<Tensor>, Error> {
        Ok(Rc::new(self.of(values, Kind::Float, shape)?))
    }

    fn leaf(&self, values: &[f32], shape: &[usize]) -> Result<Rc<Tensor>, Error> {
        Ok(Rc::new(self.of(values, Kind::Float, shape)?.f_set_requires_grad(true)?))
    }

    fn cut(&self, tensor: &Rc<Tensor>) -> Result<Rc<Tensor>, Error> {
        Ok(Rc::new(tensor.f_detach()?.f_set_requires_grad(true)?))
    }

    fn shape(&self, tensor: &Rc<Tensor>) -> Vec<usize> {
        shape(tensor)
    }

    fn read(&self, tensor: &Rc<Tensor>, target: &mut [f32]) -> Result<(), Error> {
        if tensor.numel() != target.len() {
            return refused(format!(
                "cannot read a tensor of shape {:?} into {}",
                tensor.size(),
                target.len()
            ));
        }
        Ok(tensor.f_copy_data(target, target.len())?)
    }

    fn gradients(
        &self,
        output: &Rc<Tensor>,
        seed: Option<&Rc<Tensor>>,
        leaves: &[&Rc<Tensor>],
    ) -> Result<Vec<Option<Rc<Tensor>>>, Error> {
        if !output.requires_grad() {
            return Ok(vec![None; leaves.len()]);
        }
        // libtorch starts with ones here, so what is followed back is the weighted sum itself.
        let weighted = match seed {
            Some(seed) if seed.size() == output.size() => output.f_mul(&seed.f_detach()?)?.f_sum(None)?,
            Some(seed) => {
                let (seed, output) = (seed.size(), output.size());
                return refused(format!("a gradient of shape {seed:?} for a result of shape {output:?}"));
            }
            None => output.f_reshape([0_i64; 0])?,
        };
        let leaves: Vec<&Tensor> = leaves.iter().map(|leaf| &***leaf).collect();
        let gradients = Tensor::f_run_backward(&[&weighted], &leaves, false, false)?;
        Ok(gradients.into_iter().map(|gradient| gradient.defined().then(|| Rc::new(gradient))).collect())
    }

    fn reshape(&self, x: &Rc<Tensor>, shape: &[usize]) -> Result<Rc<Tensor>, Error> {
        Ok(Rc::new(x.f_reshape(sizes(shape))?))
    }

    fn add(&self, x: &Rc<Tensor>, y: &Rc<Tensor>) -> Result<Rc<Tensor>, Error> {
        if x.size() != y.size() {
            return refused(format!("shape {:?} is not {:?}", x.size(), y.size()));
        }
        Ok(Rc::new(x.f_add(y)?))
    }

    fn add_to_each(&self, x: &Rc<Tensor>, y: &Rc<Tensor>) -> Result<Rc<Tensor>, Error> {
        if !x.size().ends_with(&y.size()) {
            return refused(format!("shape {:?} does not end with {:?}", x.size(), y.size()));
        }
        Ok(Rc::new(x.f_add(y)?))
    }

    fn linear(
        &self,
        x: &Rc<Tensor>,
        weight: &Rc<Tensor>,
        bias: Option<&Rc<Tensor>>,
    ) -> Result<Rc<Tensor>, Error> {
        let (outputs, _) = weight.size2()?;
        if let Some(bias) = bias.filter(|bias| bias.size() != [outputs]) {
            return refused(format!("a bias of shape {:?} does not fit {outputs} outputs", bias.size()));
        }
        Ok(Rc::new(x.f_linear(weight, bias.map(|bias| &**bias))?))
    }

    fn relu(&self, x: &Rc<Tensor>) -> Result<Rc<Tensor>, Error> {
        Ok(Rc::new(x.f_relu()?))
    }

    fn gelu(&self, x: &Rc<Tensor>) -> Result<Rc<Tensor>, Error> {
        Ok(Rc::new(x.f_gelu("tanh")?))
    }

    fn layer_norm(
        &self,
        x: &Rc<Tensor>,
        weight: &Rc<Tensor>,
        bias: &Rc<Tensor>,
    ) -> Result<Rc<Tensor>, Error> {
        let normal = x.f_layer_norm([last(x)], Some(&**weight), Some(&**bias), f64::from(EPSILON), true)?;
        Ok(Rc::new(normal))
    }

    fn attention(
        &self,
        queries: &Rc<Tensor>,
        keys: &Rc<Tensor>,
        values: &Rc<Tensor>,
        heads: usize,
        causal: bool,
    ) -> Result<Rc<Tensor>, Error> {
        let (batch, time, width) = queries.size3()?;
        // libtorch's kernel reads beyond values that are fewer than the keys.
        if keys.size() != values.size() || causal && keys.size() != queries.size() {
            let (queries, keys, values) = (queries.size(), keys.size(), values.size());
            return refused(format!("attention of {queries:?} over keys {keys:?} and values {values:?}"));
        }
        let split = [batch, -1, heads as i64, head_size(width as usize, heads)? as i64];
        let split = |x: &Tensor| x.f_reshape(split)?.f_transpose(1, 2);
        let (queries, keys, values) = (split(queries)?, split(keys)?, split(values)?);
        let mask = None::<&Tensor>;
        let seen =
            Tensor::f_scaled_dot_product_attention(&queries, &keys, &values, mask, 0.0, causal, None, false)?;
        Ok(Rc::new(seen.f_transpose(1, 2)?.f_reshape([batch, time, width])?))
    }

    fn embedding(&self, table: &Rc<Tensor>, indices: &[u32], shape: [usize; 2]) -> Result<Rc<Tensor>, Error> {
        let (_, width) = table.size2()?;
        let [batch, time] = shape.map(|size| size as i64);
        let rows = Tensor::f_embedding(table, &self.numbers(indices)?, -1, false, false)?;
        Ok(Rc::new(rows.f_reshape([batch, time, width])?))
    }

    fn convolution(
        &self,
        x: &Rc<Tensor>,
        weight: &Rc<Tensor>,
        bias: &Rc<Tensor>,
    ) -> Result<Rc<Tensor>, Error> {
        let (_, _, height, width) = weight.size4()?;
        let zeros = [height / 2, width / 2];
        Ok(Rc::new(x.f_conv2d(weight, Some(&**bias), [1, 1], zeros, [1, 1], 1)?))
    }

    fn max_pool(&self, x: &Rc<Tensor>, size: usize) -> Result<Rc<Tensor>, Error> {
        let square = [size as i64; 2];
        Ok(Rc::new(x.f_max_pool2d(square, square, [0, 0], [1, 1], false)?))
    }

    fn patches(&self, x: &Rc<Tensor>, size: usize) -> Result<Rc<Tensor>, Error> {
        let (batch, channels, height, width) = x.size4()?;
        let size = size.max(1) as i64;
        let (down, across) = (height / size, width / size);
        let squares = x.f_reshape([batch, channels, down, size, across, size])?;
        let squares = squares.f_permute([0, 2, 4, 1, 3, 5])?;
        Ok(Rc::new(squares.f_reshape([batch, down * across, channels * size * size])?))
    }

    fn mean_over_time(&self, x: &Rc<Tensor>) -> Result<Rc<Tensor>, Error> {
        Ok(Rc::new(x.f_mean_dim([1_i64].as_slice(), false, None)?))
    }

    fn cross_entropy(&self, scores: &Rc<Tensor>, labels: &[u32]) -> Result<Rc<Tensor>, Error> {
        let (rows, labels) = self.rows(scores, labels)?;
        let weight = None::<&Tensor>;
        Ok(Rc::new(rows.f_cross_entropy_loss(&labels, weight, Reduction::Mean, -100, 0.0)?))
    }

    fn correct(&self, scores: &Rc<Tensor>, labels: &[u32]) -> Result<usize, Error> {
        let (rows, labels) = self.rows(scores, labels)?;
        let right = rows.f_argmax(-1, false)?.f_eq_tensor(&labels)?.f_sum(Kind::Int64)?;
        Ok(right.f_int64_value(&[])?.cast_unsigned() as usize)
    }
}
