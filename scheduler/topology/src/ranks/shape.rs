//! How the ranks of a job are grouped.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A dimension in which a training job is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// Parts of each layer: most traffic, several times per layer.
    Tensor,
    /// Copies that average their gradients once a step.
    Data,
    /// Layers one after another: only activations pass on.
    Pipeline,
}

impl Dimension {
    /// In the order in which frameworks number ranks, the fastest first: rank = t + T·(d + D·p).
    pub const ALL: [Self; 3] = [Self::Tensor, Self::Data, Self::Pipeline];
}

/// How a job's ranks are grouped, and how much the groups of each dimension talk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupShape {
    /// Ranks per group, in the order of [`Dimension::ALL`].
    sizes: [u32; 3],
    /// Relative traffic, in the same order.
    weights: [f64; 3],
}

/// Why a shape does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShapeError {
    /// A group without ranks.
    #[error("{dimension:?} parallelism must be at least 1")]
    Zero {
        /// The dimension.
        dimension: Dimension,
    },
    /// A weight that is no sensible number.
    #[error("the traffic weight of {dimension:?} parallelism must be a finite number and not negative")]
    Weight {
        /// The dimension.
        dimension: Dimension,
    },
    /// A text that is no shape.
    #[error("{text:?} is no group shape: write tensor=8,pipeline=2,data=4 (or tp, pp, dp; 1 where left out)")]
    Text {
        /// The text, or its beginning.
        text: String,
    },
    /// The shape is for another number of ranks.
    #[error("tensor × data × pipeline is {shape} ranks, but {slots} are placed")]
    Ranks {
        /// Ranks of the shape.
        shape: u64,
        /// Slots given.
        slots: usize,
    },
    /// A slot is on no node of the topology.
    #[error("slot {slot} is at position {position}, beyond the topology's end")]
    UnknownPosition {
        /// Which slot.
        slot: usize,
        /// Its position.
        position: u32,
    },
}

impl GroupShape {
    /// Tensor × pipeline × data parallelism with usual weights: tensor 64, data 4, pipeline 1.
    pub fn new(tensor: u32, pipeline: u32, data: u32) -> Result<Self, ShapeError> {
        let sizes = [tensor, data, pipeline];
        match Dimension::ALL.into_iter().find(|dimension| sizes[*dimension as usize] == 0) {
            Some(dimension) => Err(ShapeError::Zero { dimension }),
            None => Ok(Self { sizes, weights: [64.0, 4.0, 1.0] }),
        }
    }

    /// The same with other relative amounts of traffic.
    pub fn with_weights(self, tensor: f64, pipeline: f64, data: f64) -> Result<Self, ShapeError> {
        let weights = [tensor, data, pipeline];
        let odd = |weight: f64| !(weight.is_finite() && weight >= 0.0);
        match Dimension::ALL.into_iter().find(|dimension| odd(weights[*dimension as usize])) {
            Some(dimension) => Err(ShapeError::Weight { dimension }),
            None => Ok(Self { weights, ..self }),
        }
    }

    /// Data parallelism alone.
    pub fn data_parallel(ranks: u32) -> Result<Self, ShapeError> {
        Self::new(1, 1, ranks)
    }

    /// Ranks of a group in a dimension.
    pub fn size(&self, dimension: Dimension) -> u32 {
        self.sizes[dimension as usize]
    }

    /// Relative traffic of a dimension.
    pub fn weight(&self, dimension: Dimension) -> f64 {
        self.weights[dimension as usize]
    }

    /// All ranks together.
    pub fn ranks(&self) -> u64 {
        self.sizes.iter().fold(1, |ranks, size| ranks.saturating_mul(u64::from(*size)))
    }

    /// The bytes that a rank exchanges in the groups of a dimension, in a step in which it averages so many with its
    /// copies.
    pub fn bytes(&self, dimension: Dimension, averaged: u64) -> u64 {
        let data = self.weight(Dimension::Data);
        let share = if data > 0.0 { self.weight(dimension) / data } else { self.weight(dimension) };
        (averaged as f64 * share) as u64
    }

    /// The same groups over units of so many consecutive ranks each, such as pods with several GPUs. `None` where
    /// the groups cannot be told by whole units.
    #[must_use]
    pub fn over_units(&self, ranks: u32) -> Option<Self> {
        let mut left = ranks;
        let mut sizes = self.sizes;
        for size in &mut sizes {
            if left.is_multiple_of(*size) {
                left /= *size;
                *size = 1;
            } else if left > 0 && size.is_multiple_of(left) {
                *size /= left;
                left = 1;
            } else {
                return None;
            }
        }
        (left == 1).then_some(Self { sizes, ..*self })
    }

    /// The same for another number of ranks: there are fewer or more copies. `None` when there is no whole number of
    /// them.
    #[must_use]
    pub fn with_ranks(&self, ranks: u64) -> Option<Self> {
        let copy = u64::from(self.size(Dimension::Tensor)) * u64::from(self.size(Dimension::Pipeline));
        let copies = u32::try_from(ranks / copy).ok().filter(|copies| *copies > 0)?;
        let mut sizes = self.sizes;
        sizes[Dimension::Data as usize] = copies;
        ranks.is_multiple_of(copy).then_some(Self { sizes, ..*self })
    }

    /// The ranks of each group of a dimension, in the order of its ring.
    pub fn groups(
        &self,
        dimension: Dimension,
    ) -> impl Iterator<Item = impl Iterator<Item = usize> + use<>> + use<> {
        let (size, stride) = (self.size(dimension) as usize, self.rank_stride(dimension));
        let ranks = self.sizes.iter().map(|size| *size as usize).product::<usize>();
        let first = (0..ranks).filter(move |rank| (rank / stride).is_multiple_of(size));
        first.map(move |rank| (0..size).map(move |at| rank + at * stride))
    }

    /// The dimensions with the most talkative first, which is placed nearest.
    pub(super) fn by_weight(&self) -> [Dimension; 3] {
        let mut dimensions = Dimension::ALL;
        dimensions.sort_by(|a, b| self.weight(*b).total_cmp(&self.weight(*a)));
        dimensions
    }

    /// How far apart the ranks of neighbours in a dimension are.
    pub(super) fn rank_stride(&self, dimension: Dimension) -> usize {
        let faster = Dimension::ALL.into_iter().take_while(|other| *other != dimension);
        faster.map(|other| self.size(other) as usize).product()
    }
}

// Weights are finite: `with_weights` sees to it.
impl Eq for GroupShape {}

impl fmt::Display for GroupShape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [tensor, data, pipeline] = self.sizes;
        write!(formatter, "tensor={tensor},pipeline={pipeline},data={data}")
    }
}

impl FromStr for GroupShape {
    type Err = ShapeError;

    /// `tensor=8,pipeline=2,data=4`, also `tp`, `pp` and `dp`, in any order; what is left out is 1.
    fn from_str(text: &str) -> Result<Self, ShapeError> {
        let fault = || ShapeError::Text { text: text.chars().take(80).collect() };
        let mut sizes = [None; 3];
        for part in text.split(',') {
            let (name, size) = part.split_once('=').ok_or_else(fault)?;
            let dimension = match name.trim() {
                "tensor" | "tp" => Dimension::Tensor,
                "data" | "dp" => Dimension::Data,
                "pipeline" | "pp" => Dimension::Pipeline,
                _ => return Err(fault()),
            };
            let size: u32 = size.trim().parse().map_err(|_| fault())?;
            if sizes[dimension as usize].replace(size).is_some() {
                return Err(fault());
            }
        }
        let [tensor, data, pipeline] = sizes.map(|size| size.unwrap_or(1));
        Self::new(tensor, pipeline, data)
    }
}
