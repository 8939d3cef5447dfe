//! Which rank goes where.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::str::FromStr;

use thiserror::Error;

use crate::cost::{Hosts, Slot};
use crate::interior::GpuSet;
use crate::tree::{LevelIndex, Topology};

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
        self.sizes.iter().map(|size| u64::from(*size)).product()
    }

    /// The dimensions with the most talkative first, which is placed nearest.
    fn by_weight(&self) -> [Dimension; 3] {
        let mut dimensions = Dimension::ALL;
        dimensions.sort_by(|a, b| self.weight(*b).total_cmp(&self.weight(*a)));
        dimensions
    }

    /// How far apart the ranks of neighbours in a dimension are.
    fn rank_stride(&self, dimension: Dimension) -> usize {
        let faster = Dimension::ALL.into_iter().take_while(|other| *other != dimension);
        faster.map(|other| self.size(other) as usize).product()
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

/// For every rank the index of its slot.
///
/// Slots are taken depth-first, and inside a node in the order of its best ring, so a ring over all ranks leaves
/// each domain that it uses exactly once; no order does better. With a shape, groups of the most talkative
/// dimension are formed first, each inside the smallest domain that has enough slots for it; then groups of these
/// groups, and so on. Ranks are numbered as [`Dimension::ALL`] says.
pub fn order_ranks(
    topology: &Topology,
    hosts: &Hosts,
    slots: &[Slot],
    shape: Option<&GroupShape>,
) -> Result<Vec<u32>, ShapeError> {
    if let Some((slot, at)) =
        slots.iter().enumerate().find(|(_, at)| at.position.index() >= topology.node_count())
    {
        return Err(ShapeError::UnknownPosition { slot, position: at.position.0 });
    }
    let order = depth_first(hosts, slots);
    let Some(shape) = shape else { return Ok(order) };
    if shape.ranks() != slots.len() as u64 {
        return Err(ShapeError::Ranks { shape: shape.ranks(), slots: slots.len() });
    }
    let mut groups: Vec<Vec<u32>> = order.into_iter().map(|slot| vec![slot]).collect();
    let mut ranks = vec![0_u32; slots.len()];
    let mut numbers = vec![0_usize];
    for dimension in shape.by_weight() {
        let size = shape.size(dimension) as usize;
        groups = group(topology, slots, groups, size);
        let stride = shape.rank_stride(dimension);
        numbers = (0..size).flat_map(|at| numbers.iter().map(move |rank| rank + at * stride)).collect();
    }
    for (rank, slot) in numbers.into_iter().zip(groups.into_iter().flatten()) {
        ranks[rank] = slot;
    }
    Ok(ranks)
}

/// The slots in the order of positions, those of a node in the order of its best ring.
fn depth_first(hosts: &Hosts, slots: &[Slot]) -> Vec<u32> {
    let mut nodes: BTreeMap<_, GpuSet> = BTreeMap::new();
    for slot in slots {
        let gpus = nodes.entry(slot.position).or_default();
        *gpus = gpus.with(usize::from(slot.gpu));
    }
    let mut place = BTreeMap::new();
    for (position, gpus) in nodes {
        for (at, gpu) in hosts.interior(position).ring_order(gpus).into_iter().enumerate() {
            place.insert((position, gpu), at);
        }
    }
    let key = |index: &u32| {
        let slot = slots[*index as usize];
        let at = place.get(&(slot.position, usize::from(slot.gpu))).copied().unwrap_or(usize::MAX);
        (slot.position, at, slot.gpu, *index)
    };
    let mut order: Vec<u32> = (0..slots.len() as u32).collect();
    order.sort_unstable_by_key(key);
    order
}

/// Joins items to groups of `size`, from the hosts upwards: what does not fill a group in a domain is left to the
/// domain above. Items and groups stand in the order of their first slots.
fn group(topology: &Topology, slots: &[Slot], items: Vec<Vec<u32>>, size: usize) -> Vec<Vec<u32>> {
    if size == 1 {
        return items;
    }
    let position = |item: usize| slots[items[item][0] as usize].position;
    let mut left: Vec<usize> = (0..items.len()).collect();
    let mut groups: Vec<Vec<usize>> = Vec::with_capacity(items.len() / size);
    for level in topology.level_indices().rev() {
        let domain = |item: &usize| topology.domain_at(level, position(*item));
        let mut next = Vec::new();
        for inside in left.chunk_by(|a, b| domain(a) == domain(b)) {
            let mut full = inside.chunks_exact(size);
            groups.extend(full.by_ref().map(<[usize]>::to_vec));
            next.extend_from_slice(full.remainder());
        }
        left = next;
    }
    groups.sort_by_key(|group| group[0]);
    let flatten =
        |group: Vec<usize>| group.into_iter().flat_map(|item| items[item].iter().copied()).collect();
    groups.into_iter().map(flatten).collect()
}

/// How often a ring over the slots (in the order of their ranks) goes from one domain of a level to another.
pub fn ring_crossings(topology: &Topology, level: LevelIndex, slots: &[Slot]) -> usize {
    let domain = |slot: &Slot| topology.domain_at(level, slot.position);
    let steps = slots.iter().zip(slots.iter().cycle().skip(1));
    steps.filter(|(from, to)| domain(from) != domain(to)).count()
}

/// The same summed over the rings of all groups of a dimension.
pub fn group_crossings(
    topology: &Topology,
    level: LevelIndex,
    slots: &[Slot],
    shape: &GroupShape,
    dimension: Dimension,
) -> usize {
    let (size, stride) = (shape.size(dimension) as usize, shape.rank_stride(dimension));
    let first = |rank: &usize| (rank / stride).is_multiple_of(size);
    (0..slots.len())
        .filter(first)
        .map(|rank| {
            let members = (0..size).filter_map(|at| slots.get(rank + at * stride).copied());
            ring_crossings(topology, level, &members.collect::<Vec<_>>())
        })
        .sum()
}
