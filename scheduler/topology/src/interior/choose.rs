//! Which of a node's free GPUs to take.

use super::{GpuSet, NodeInterior};

/// Up to so many free GPUs every choice is looked at.
const EXHAUSTIVE: usize = 16;

/// How good a choice is; the first difference decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    /// MB/s of the ring over the chosen.
    ring: u32,
    /// MB/s between all pairs of the chosen, then NUMA nodes and network cards in common.
    near: (u64, u64),
    /// The same for those left free.
    left: (u64, u64),
}

impl NodeInterior {
    /// The `count` best of the free GPUs: the widest ring, then the widest paths between all of them, then common
    /// NUMA nodes and network cards, then the best rest for whoever comes next, then the lowest indices. Of up to
    /// 16 free GPUs every choice is weighed, of more only what grows well from each one. None when too few are free.
    pub fn choose_gpus(&self, free: GpuSet, count: usize) -> Option<GpuSet> {
        let free = free.and(GpuSet::first(self.count));
        if free.len() < count {
            return None;
        }
        if free.len() == count || count == 0 {
            return Some(if count == 0 { GpuSet::EMPTY } else { free });
        }
        if self.uniform {
            return Some(free.iter().take(count).collect());
        }
        let indices: Vec<usize> = free.iter().collect();
        if indices.len() <= EXHAUSTIVE {
            Some(self.best_of_all(free, &indices, count))
        } else {
            self.best_grown(free, &indices, count)
        }
    }

    fn best_of_all(&self, free: GpuSet, indices: &[usize], count: usize) -> GpuSet {
        let mut best: Option<(Score, GpuSet)> = None;
        let mut choice = (1_u64 << count) - 1;
        while choice < 1 << indices.len() {
            let chosen = GpuSet(choice).iter().map(|bit| indices[bit]).collect();
            self.weigh(free, chosen, &mut best);
            // The next number with as many bits.
            let lowest = choice & choice.wrapping_neg();
            let carried = choice + lowest;
            choice = carried | (((choice ^ carried) >> 2) / lowest);
        }
        best.map_or(free, |(_, chosen)| chosen)
    }

    fn best_grown(&self, free: GpuSet, indices: &[usize], count: usize) -> Option<GpuSet> {
        let mut best = None;
        for seed in indices {
            let mut chosen = GpuSet::EMPTY.with(*seed);
            while chosen.len() < count {
                let near = |gpu: &usize| {
                    let sum: u64 = chosen.iter().map(|other| self.closeness(*gpu, other)).sum();
                    (sum, std::cmp::Reverse(*gpu))
                };
                let next = free.without(chosen).iter().max_by_key(near)?;
                chosen = chosen.with(next);
            }
            self.weigh(free, chosen, &mut best);
        }
        best.map(|(_, chosen)| chosen)
    }

    fn closeness(&self, a: usize, b: usize) -> u64 {
        u64::from(self.megabytes(a, b)) * 4 + u64::from(self.affinities[a * self.count + b])
    }

    /// Keeps the choice when it is better than the best so far; what costs more to find out is looked at last.
    fn weigh(&self, free: GpuSet, chosen: GpuSet, best: &mut Option<(Score, GpuSet)>) {
        let ring = if chosen.len() < 2 { u32::MAX } else { self.ring_megabytes(chosen) };
        if best.is_some_and(|(score, _)| score.ring > ring) {
            return;
        }
        let near = self.pairs(chosen);
        if best.is_some_and(|(score, _)| (score.ring, score.near) > (ring, near)) {
            return;
        }
        let score = Score { ring, near, left: self.pairs(free.without(chosen)) };
        if best.is_none_or(|(other, set)| {
            (score, std::cmp::Reverse(chosen.0)) > (other, std::cmp::Reverse(set.0))
        }) {
            *best = Some((score, chosen));
        }
    }

    /// Sums over all pairs: MB/s, and what they have in common.
    fn pairs(&self, gpus: GpuSet) -> (u64, u64) {
        let mut sums = (0, 0);
        let mut rest = gpus;
        for a in gpus.iter() {
            rest = rest.without(GpuSet::EMPTY.with(a));
            let row = a * self.count;
            for b in rest.iter() {
                sums.0 += u64::from(self.bandwidths[row + b]);
                sums.1 += u64::from(self.affinities[row + b]);
            }
        }
        sums
    }
}
