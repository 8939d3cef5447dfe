//! Which pods of a gang are ranks, and which of its places each rank gets.
//!
//! A GPU is a rank, and the GPUs of a pod follow each other. Pods without GPUs are no ranks beside pods that have some,
//! such as a launcher; in a gang without whole GPUs every pod is one.

use muster_scheduler_topology::cost::Slot as Rank;
use muster_scheduler_topology::{Dimension, GroupShape, Position, order_ranks};

use crate::devices::GpuDemand;
use crate::explain::Waiting;
use crate::gang::{Gang, Member};
use crate::map::Map;
use crate::search::{Demand, Slots};

/// How many ranks these pods are.
pub(crate) fn count<'a>(members: impl Iterator<Item = &'a Member>) -> u64 {
    let (mut pods, mut gpus) = (0, 0);
    for member in members {
        pods += 1;
        gpus += u64::from(whole(member.gpu_demand()));
    }
    if gpus > 0 { gpus } else { pods }
}

fn whole(demand: GpuDemand) -> u32 {
    if let GpuDemand::Whole(gpus) = demand { gpus } else { 0 }
}

impl Gang {
    /// The groups of the gang's first `count` waiting pods. Of an elastic gang that is not there as a whole, the number
    /// of copies is lower. None where it says nothing of groups, and for pods that join others: these have their
    /// places.
    ///
    /// # Errors
    /// [`Waiting::Shape`] when they are another number of ranks.
    pub fn groups_of(&self, count: usize) -> Result<Option<GroupShape>, Waiting> {
        let Some(shape) = self.shape.filter(|_| self.placed_on.is_empty()) else { return Ok(None) };
        let members = &self.waiting[..count.min(self.waiting.len())];
        let ranks = self::count(members.iter());
        let fewer = count < self.waiting.len() || self.min_available < self.waiting.len();
        let fits = if ranks == shape.ranks() {
            Some(shape)
        } else {
            shape.with_ranks(ranks).filter(|_| fewer && ranks < shape.ranks())
        };
        let has_gpus = members.iter().any(|member| whole(member.gpu_demand()) > 0);
        let fault = || Waiting::Shape { shape, pods: members.len(), gpus: has_gpus.then_some(ranks) };
        fits.map(Some).ok_or_else(fault)
    }
}

impl Demand {
    /// Whether the pods of a group are ranks.
    pub(crate) fn is_ranked(&self, group: usize) -> bool {
        let pods = self.pods();
        let gpus = |index: usize| pods.get(index).map_or(0, |group| whole(group.shape.gpu));
        group < pods.len() && (gpus(group) > 0 || (0..pods.len()).all(|other| gpus(other) == 0))
    }

    /// Ranks of each pod, where all that are ranks have equally many.
    fn ranks_a_pod(&self) -> Option<u32> {
        let ranked = (0..self.groups.len()).filter(|group| self.is_ranked(*group));
        let mut ranks = ranked.map(|group| whole(self.groups[group].shape.gpu).max(1));
        let first = ranks.next()?;
        ranks.all(|other| other == first).then_some(first)
    }

    /// The groups of its pods, where whole pods make them up.
    pub(crate) fn groups_of_pods(&self) -> Option<GroupShape> {
        self.shape?.over_units(self.ranks_a_pod()?)
    }

    /// The fewest pods that are whole tensor groups, where these span pods: they should be near each other.
    pub(crate) fn pods_together(&self) -> Option<u32> {
        let (tensor, ranks) = (self.shape?.size(Dimension::Tensor), self.ranks_a_pod()?);
        let (mut divisor, mut rest) = (tensor, ranks);
        while rest > 0 {
            (divisor, rest) = (rest, divisor % rest);
        }
        let pods = tensor / divisor;
        let all: u32 =
            (0..self.groups.len()).filter(|at| self.is_ranked(*at)).map(|at| self.groups[at].count).sum();
        (pods > 1 && pods <= all).then_some(pods)
    }
}

/// Indices of the slots that are ranks, in the order in which ranks should have them: by the groups, or as they stand.
pub(crate) fn in_order(map: &Map, demand: &Demand, slots: &Slots) -> Vec<usize> {
    let ranked: Vec<usize> =
        (0..slots.0.len()).filter(|index| demand.is_ranked(slots.0[*index].group)).collect();
    if demand.shape.is_none() {
        return ranked;
    }
    let place = |index: &usize| {
        let slot = &slots.0[*index];
        let position = map.position(slot.node).unwrap_or(0);
        Rank {
            position: Position(position as u32),
            gpu: u16::from(slot.devices.first().copied().unwrap_or(0)),
        }
    };
    let places: Vec<Rank> = ranked.iter().map(place).collect();
    let order = order_ranks(map.topology(), map.costs().hosts(), &places, demand.groups_of_pods().as_ref())
        .or_else(|_| order_ranks(map.topology(), map.costs().hosts(), &places, None));
    match order {
        Ok(order) => order.into_iter().map(|index| ranked[index as usize]).collect(),
        Err(_) => ranked,
    }
}

/// The GPUs of slots in this order, rank by rank. Pods without GPUs are ranks on the node itself.
pub(crate) fn of_slots(map: &Map, slots: &Slots, order: &[usize]) -> Vec<Rank> {
    let mut ranks = Vec::with_capacity(order.len());
    for index in order {
        let slot = &slots.0[*index];
        let Some(position) = map.position(slot.node) else { continue };
        ranks.extend(on_node(position, &slot.devices));
    }
    ranks
}

/// The ranks of a pod with these GPUs.
pub(crate) fn on_node(position: usize, devices: &[u8]) -> impl Iterator<Item = Rank> + '_ {
    let position = Position(position as u32);
    let none = devices.is_empty().then_some(0);
    devices.iter().copied().chain(none).map(move |gpu| Rank { position, gpu: u16::from(gpu) })
}

/// Brings slots of the wanted kinds to their ranks. Whole groups change places as long as that is possible: so groups
/// stay what they are.
pub(crate) fn seat(
    order: &mut [usize],
    kind_of: impl Fn(usize) -> usize,
    wanted: &[usize],
    groups: Option<&GroupShape>,
) {
    let tensor = groups.map_or(1, |shape| shape.size(Dimension::Tensor) as usize);
    let stage = tensor * groups.map_or(1, |shape| shape.size(Dimension::Data) as usize);
    for (rank, wanted) in wanted.iter().enumerate().take(order.len()) {
        let fits = |other: &usize| kind_of(order[*other]) == *wanted;
        let Some(mut from) = (rank..order.len()).find(fits) else { continue };
        for block in [stage, tensor, 1] {
            if rank.is_multiple_of(block) && from / block != rank / block {
                let (into, out_of) = (rank, from / block * block);
                (0..block).for_each(|at| order.swap(into + at, out_of + at));
                from = rank + from % block;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_groups_make_way_for_the_pod_that_must_have_a_rank() {
        let shape: GroupShape = "tensor=2,data=2,pipeline=2".parse().unwrap();
        let mut order: Vec<usize> = (0..8).collect();
        // Slot 7 is of the kind that rank 0 wants.
        let kind = |slot: usize| usize::from(slot == 7);
        seat(&mut order, kind, &[1, 0, 0, 0, 0, 0, 0, 0], Some(&shape));
        assert_eq!(order, [7, 6, 4, 5, 0, 1, 2, 3], "6 and 7 are a group still, and so is each stage");
        let mut order: Vec<usize> = (0..4).collect();
        seat(&mut order, |slot| usize::from(slot == 2), &[0, 1, 0, 0], None);
        assert_eq!(order, [0, 2, 1, 3]);
    }
}
