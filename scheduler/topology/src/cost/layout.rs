//! How ranks lie on islands, and which uplinks a ring or a tree over the islands crosses.

use std::collections::BTreeMap;

use super::{CostError, CostModel, Slot};
use crate::interior::{GpuSet, MAX_GPUS};
use crate::tree::{DomainId, LevelIndex, Position, Topology};

/// The ranks of one island.
#[derive(Debug, Clone)]
pub(super) struct Island {
    pub(super) domain: DomainId,
    pub(super) position: Position,
    pub(super) ranks: u32,
    /// The hosts with their ranks and GPUs, in the order in which ranks name them.
    pub(super) hosts: Vec<(Position, u32, GpuSet)>,
}

/// The islands in the order in which ranks first name them.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) ranks: u32,
    pub(super) islands: Vec<Island>,
    /// The island of a domain, by its place in `islands`.
    known: BTreeMap<DomainId, usize>,
}

impl Layout {
    pub(super) fn new(model: &CostModel<'_>, slots: &[Slot]) -> Result<Self, CostError> {
        let topology = model.topology;
        let level = topology.island_level();
        let nodes = topology.node_count();
        let mut islands: Vec<Island> = Vec::new();
        let mut known: BTreeMap<DomainId, usize> = BTreeMap::new();
        for (rank, &Slot { position, gpu }) in slots.iter().enumerate() {
            if position.index() >= nodes {
                return Err(CostError::UnknownPosition { rank, position: position.0, nodes });
            }
            if usize::from(gpu) >= MAX_GPUS {
                return Err(CostError::UnknownGpu { rank, gpu });
            }
            let domain = topology.domain_at(level, position);
            let index = match islands.last() {
                Some(last) if last.domain == domain => islands.len() - 1,
                _ => *known.entry(domain).or_insert_with(|| {
                    islands.push(Island { domain, position, ranks: 0, hosts: Vec::new() });
                    islands.len() - 1
                }),
            };
            let island = &mut islands[index];
            island.ranks += 1;
            let gpu = GpuSet::EMPTY.with(usize::from(gpu));
            match island.hosts.iter_mut().rev().find(|(host, ..)| *host == position) {
                Some((_, ranks, gpus)) => {
                    *ranks += 1;
                    gpus.0 |= gpu.0;
                }
                None => island.hosts.push((position, 1, gpu)),
            }
        }
        Ok(Self { ranks: slots.len() as u32, islands, known })
    }

    /// How many ranks an island has.
    pub(super) fn ranks_of(&self, island: DomainId) -> u32 {
        self.known.get(&island).map_or(0, |index| self.islands[*index].ranks)
    }

    /// How often a ring over the islands leaves each domain, in the order of the domains.
    pub(super) fn ring_crossings(&self, topology: &Topology) -> Vec<(DomainId, u32)> {
        let count = self.islands.len();
        let edges = (0..count).map(|index| (index, (index + 1) % count));
        let mut crossings = BTreeMap::new();
        self.cross(topology, edges, |domain, _| *crossings.entry(domain).or_default() += 1);
        crossings.into_iter().collect()
    }

    /// How many edges of NCCL's two binary trees over the islands end inside each domain and begin outside.
    pub(super) fn tree_crossings(&self, topology: &Topology) -> Vec<(DomainId, u32)> {
        let count = self.islands.len();
        let mut crossings: BTreeMap<DomainId, u32> = BTreeMap::new();
        self.cross(topology, double_tree(count), |from, to| {
            for domain in [from, to] {
                *crossings.entry(domain).or_default() += 1;
            }
        });
        crossings.into_iter().collect()
    }

    /// Calls `crossed` with the domains that each edge leaves and enters, level by level upwards.
    fn cross(
        &self,
        topology: &Topology,
        edges: impl Iterator<Item = (usize, usize)>,
        mut crossed: impl FnMut(DomainId, DomainId),
    ) {
        let level = topology.island_level();
        for (from, to) in edges {
            let (from, to) = (self.islands[from].position, self.islands[to].position);
            for level in (1..=level.0).rev().map(LevelIndex) {
                let (left, entered) = (topology.domain_at(level, from), topology.domain_at(level, to));
                if left == entered {
                    break;
                }
                crossed(left, entered);
            }
        }
    }
}

/// The edges of two complementary binary trees over `count` islands. In the first a number's parent is found by
/// moving its lowest set bit up, so that odd numbers are leaves; the second is the same tree over the numbers
/// mirrored (even count) or moved on by one (odd count), so that most leaves of one are inner in the other.
fn double_tree(count: usize) -> impl Iterator<Item = (usize, usize)> {
    let parent = move |index: usize| {
        let lowest = index & index.wrapping_neg();
        let up = (index ^ lowest) | (lowest << 1);
        if up < count { up } else { index ^ lowest }
    };
    let first = (1..count).map(move |index| (index, parent(index)));
    let second = (1..count).map(move |index| {
        let other = move |index: usize| {
            if count.is_multiple_of(2) { count - 1 - index } else { (index + 1) % count }
        };
        (other(index), other(parent(index)))
    });
    first.chain(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_trees_span_all_islands() {
        for count in 1..70 {
            let edges: Vec<_> = double_tree(count).collect();
            assert_eq!(edges.len(), 2 * (count - 1));
            for half in edges.chunks((count - 1).max(1)) {
                let mut group: Vec<usize> = (0..count).collect();
                for (a, b) in half {
                    let (a, b) = (group[*a], group[*b]);
                    assert_ne!(a, b, "no cycle among {count}");
                    group.iter_mut().filter(|of| **of == a).for_each(|of| *of = b);
                }
            }
            let busiest = (0..count)
                .map(|island| edges.iter().filter(|(a, b)| *a == island || *b == island).count())
                .max();
            assert!(busiest.unwrap_or(0) <= 5, "{count} islands: {busiest:?}");
        }
    }
}
