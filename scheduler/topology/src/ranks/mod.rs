//! Which rank goes where.

mod shape;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::cost::{Hosts, Slot};
use crate::interior::GpuSet;
use crate::tree::{LevelIndex, Topology};

pub use shape::{Dimension, GroupShape, ShapeError};

/// For every rank the index of its slot.
///
/// Slots are taken depth-first, and inside a node in the order of its best ring, so a ring over all ranks leaves
/// each domain that it uses exactly once; no order does better. With a shape, groups of the most talkative
/// dimension are formed first, each inside the smallest domain that has enough slots for it; then groups of these
/// groups, and so on. Where the plain order crosses less, by weight, it is kept. Ranks are numbered as
/// [`Dimension::ALL`] says.
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
    let mut groups: Vec<Vec<u32>> = order.iter().map(|slot| vec![*slot]).collect();
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
    let crossings = |order: &[u32]| {
        let placed: Vec<Slot> = order.iter().map(|index| slots[*index as usize]).collect();
        weighted_crossings(topology, &placed, shape)
    };
    Ok(if crossings(&order) < crossings(&ranks) { order } else { ranks })
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
    let members = |group: &mut dyn Iterator<Item = usize>| -> Vec<Slot> {
        group.filter_map(|rank| slots.get(rank).copied()).collect()
    };
    shape.groups(dimension).map(|mut group| ring_crossings(topology, level, &members(&mut group))).sum()
}

/// The crossings of all groups on all levels, each by the traffic of its dimension.
pub fn weighted_crossings(topology: &Topology, slots: &[Slot], shape: &GroupShape) -> f64 {
    let of = |dimension: Dimension| {
        let levels = topology.level_indices();
        let crossings: usize =
            levels.map(|level| group_crossings(topology, level, slots, shape, dimension)).sum();
        shape.weight(dimension) * crossings as f64
    };
    Dimension::ALL.into_iter().filter(|dimension| shape.size(*dimension) > 1).map(of).sum()
}
