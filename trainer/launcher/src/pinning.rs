//! Which cores each worker gets. Pure.
//!
//! A worker's cores are its own. Whole physical cores are dealt while there are enough, else processors. Workers stay in
//! one NUMA node unless that would cost them more than a quarter of an even share; those with a GPU in a node are in
//! that node. Workers of a node differ by one core at most.

use std::collections::BTreeMap;

use crate::machine::Cpu;

/// The cores of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CoreSet {
    /// Its processors, rising.
    pub(crate) cpus: Vec<usize>,
    /// How many cores they are on.
    pub(crate) cores: usize,
}

/// What is dealt: the processors of a core, or one processor where there are more workers than cores.
type Unit = Vec<usize>;

/// Deals `cpus` to workers; `near` has an entry a worker, the NUMA node of its GPU if it has one. `None` when there are fewer
/// processors than workers, so that nobody can have one of his own.
pub(crate) fn deal(cpus: &[Cpu], near: &[Option<usize>]) -> Option<Vec<CoreSet>> {
    let nodes = units(cpus, near.len());
    let total: usize = nodes.iter().map(|(_, units)| units.len()).sum();
    if near.is_empty() || total < near.len() {
        return None;
    }
    Some(by_node(&nodes, near, total).unwrap_or_else(|| {
        let all: Vec<_> = nodes.iter().flat_map(|(_, units)| units).cloned().collect();
        split(&all, near.len())
    }))
}

/// What is dealt, by NUMA node.
fn units(cpus: &[Cpu], workers: usize) -> Vec<(usize, Vec<Unit>)> {
    let mut cores: BTreeMap<(usize, usize), Unit> = BTreeMap::new();
    for cpu in cpus {
        cores.entry((cpu.node, cpu.core)).or_default().push(cpu.id);
    }
    let whole = cores.len() >= workers;
    let mut nodes: BTreeMap<usize, Vec<Unit>> = BTreeMap::new();
    for ((node, _), core) in cores {
        let units = nodes.entry(node).or_default();
        if whole {
            units.push(core);
        } else {
            units.extend(core.into_iter().map(|cpu| vec![cpu]));
        }
    }
    nodes.into_iter().collect()
}

/// Every worker in one node, or `None` where that costs too much.
fn by_node(nodes: &[(usize, Vec<Unit>)], near: &[Option<usize>], total: usize) -> Option<Vec<CoreSet>> {
    let wished: Vec<Option<usize>> =
        near.iter().map(|node| nodes.iter().position(|(other, _)| Some(*other) == *node)).collect();
    let mut counts = vec![0; nodes.len()];
    for node in wished.iter().flatten() {
        counts[*node] += 1;
    }
    // The others go where the next one's share is largest: no other way leaves the smallest share larger.
    let mut added = vec![0; nodes.len()];
    for _ in wished.iter().filter(|node| node.is_none()) {
        let size = |node: usize| nodes[node].1.len();
        let better =
            |one: usize, other: usize| size(other) * (counts[one] + 1) > size(one) * (counts[other] + 1);
        let best = (0..nodes.len()).reduce(|best, node| if better(best, node) { node } else { best })?;
        counts[best] += 1;
        added[best] += 1;
    }
    let used = || nodes.iter().zip(&counts).filter(|(_, count)| **count > 0);
    let smallest = used().map(|((_, units), count)| units.len() / count).min()?;
    let is_free = wished.iter().all(Option::is_none);
    if smallest == 0 || (is_free && smallest * 4 < total / near.len() * 3) {
        return None;
    }
    // Neighbours in rank are neighbours in place.
    let mut free = (0..nodes.len()).flat_map(|node| std::iter::repeat_n(node, added[node]));
    let homes: Vec<usize> = wished.iter().map(|node| node.or_else(|| free.next())).collect::<Option<_>>()?;
    let mut shares: Vec<_> =
        nodes.iter().zip(&counts).map(|((_, units), count)| split(units, *count).into_iter()).collect();
    homes.into_iter().map(|home| shares[home].next()).collect()
}

/// Neighbouring units for each of `workers`, whose numbers differ by one at most.
fn split(units: &[Unit], workers: usize) -> Vec<CoreSet> {
    let share = |worker: usize| {
        let bounds = [worker, worker + 1].map(|worker| worker * units.len() / workers);
        let own = &units[bounds[0]..bounds[1]];
        let mut cpus: Vec<_> = own.iter().flatten().copied().collect();
        cpus.sort_unstable();
        CoreSet { cpus, cores: own.len() }
    };
    (0..workers).map(share).collect()
}

#[cfg(test)]
mod tests;
