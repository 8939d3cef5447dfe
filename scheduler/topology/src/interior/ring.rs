//! Rings over GPUs: how wide the widest is, and in which order it visits them.

use super::{CLASSES, GpuSet, LinkKind, NodeInterior};

/// Up to here the best order is found exactly.
const EXACT_ORDER: usize = 10;

/// Steps of the search for a ring before it is given up; far more than real machines need.
const SEARCH_STEPS: usize = 20_000;

impl NodeInterior {
    /// GB/s per direction that a ring over these GPUs sustains: its narrowest path, or all NVLinks together where
    /// a ring of NVLinks exists. Without end for fewer than two.
    pub fn ring_bandwidth(&self, gpus: GpuSet) -> f64 {
        let gpus = gpus.and(GpuSet::first(self.count));
        if gpus.len() < 2 { f64::INFINITY } else { f64::from(self.ring_megabytes(gpus)) / 1000.0 }
    }

    /// The same in MB/s, for two or more GPUs that exist.
    pub(super) fn ring_megabytes(&self, gpus: GpuSet) -> u32 {
        let class = (0..CLASSES).find(|class| self.has_ring(gpus, *class)).unwrap_or(CLASSES - 1);
        let path = match class {
            0 => return gpus.iter().map(|gpu| self.nvlink_megabytes(gpu, gpus)).min().unwrap_or(0),
            1 => LinkKind::Pix,
            2 => LinkKind::Pxb,
            3 => LinkKind::Phb,
            4 => LinkKind::Node,
            _ => LinkKind::Sys,
        };
        self.accelerator.megabytes(path)
    }

    /// MB/s per direction over all NVLinks from a GPU to others. Behind a switch every pair shows all links of
    /// the GPU, which it still has only once.
    fn nvlink_megabytes(&self, gpu: usize, others: GpuSet) -> u32 {
        let reached = || others.and(self.reach[gpu][0]).iter().map(|other| self.megabytes(gpu, other));
        let widest = reached().max().unwrap_or(0);
        let total = (self.accelerator.nvlink_total() * 1000.0).round() as u32;
        reached().fold(0_u32, u32::saturating_add).min(total.max(widest))
    }

    /// Whether a ring over the GPUs exists that uses no path beyond a class.
    pub(super) fn has_ring(&self, gpus: GpuSet, class: usize) -> bool {
        let count = gpus.len();
        let mut fewest = usize::MAX;
        for gpu in gpus.iter() {
            fewest = fewest.min(self.reach[gpu][class].and(gpus).len());
            if fewest < 2.min(count - 1) {
                return false;
            }
        }
        // With so many neighbours each, there always is one (Dirac).
        if count <= 2 || 2 * fewest >= count {
            return true;
        }
        let start = gpus.0.trailing_zeros() as usize;
        let mut steps = SEARCH_STEPS;
        self.extend_ring(gpus, class, start, start, GpuSet::EMPTY.with(start), &mut steps)
    }

    fn extend_ring(
        &self,
        gpus: GpuSet,
        class: usize,
        start: usize,
        last: usize,
        visited: GpuSet,
        steps: &mut usize,
    ) -> bool {
        if visited == gpus {
            return self.reach[last][class].contains(start);
        }
        if *steps == 0 {
            return false;
        }
        *steps -= 1;
        let next = self.reach[last][class].and(gpus).without(visited);
        next.iter().any(|gpu| self.extend_ring(gpus, class, start, gpu, visited.with(gpu), steps))
    }

    /// The GPUs in the order in which ranks should use them: neighbours in the order are near, and so are the last
    /// and the first. It begins with the lowest index.
    pub fn ring_order(&self, gpus: GpuSet) -> Vec<usize> {
        let indices: Vec<usize> = gpus.iter().filter(|gpu| *gpu < self.count).collect();
        if self.uniform || indices.len() <= 3 {
            return indices;
        }
        let set = gpus.and(GpuSet::first(self.count));
        let class = (0..CLASSES).find(|class| self.has_ring(set, *class)).unwrap_or(CLASSES - 1);
        if indices.len() <= EXACT_ORDER {
            self.best_order(&indices, class)
        } else {
            self.near_order(&indices)
        }
    }

    /// How good it is to go from one GPU to the other; paths beyond the class count as none.
    fn weight(&self, a: usize, b: usize, class: usize) -> i64 {
        let beyond = self.links[a * self.count + b].class() > class;
        let near = i64::from(self.megabytes(a, b)) * 8 + i64::from(self.affinities[a * self.count + b]);
        if beyond { near - (1 << 40) } else { near }
    }

    /// The ring with the greatest sum, over all sets of visited GPUs and last ones.
    fn best_order(&self, gpus: &[usize], class: usize) -> Vec<usize> {
        let count = gpus.len();
        let mut best = vec![(i64::MIN, 0_u8); count << count];
        best[count] = (0, 0);
        for visited in (1_usize..1 << count).step_by(2) {
            for last in (0..count).filter(|last| visited >> last & 1 == 1) {
                let (sum, _) = best[visited * count + last];
                if sum == i64::MIN {
                    continue;
                }
                for next in (0..count).filter(|next| visited >> next & 1 == 0) {
                    let candidate = sum + self.weight(gpus[last], gpus[next], class);
                    let entry = &mut best[(visited | 1 << next) * count + next];
                    if candidate > entry.0 {
                        *entry = (candidate, last as u8);
                    }
                }
            }
        }
        let all = (1 << count) - 1;
        let closing = |last: usize| best[all * count + last].0 + self.weight(gpus[last], gpus[0], class);
        let mut last = (1..count).rev().max_by_key(|last| closing(*last)).unwrap_or(0);
        let mut visited = all;
        let mut order = Vec::with_capacity(count);
        while visited != 0 {
            order.push(gpus[last]);
            let before = best[visited * count + last].1 as usize;
            visited &= !(1 << last);
            last = before;
        }
        order.reverse();
        // A ring has two directions; take the one that rises first.
        if order[1] > order[count - 1] {
            order[1..].reverse();
        }
        order
    }

    /// Always on to the nearest GPU that is left.
    fn near_order(&self, gpus: &[usize]) -> Vec<usize> {
        let mut left = gpus.to_vec();
        let mut order = vec![left.remove(0)];
        while let Some(last) = order.last().copied().filter(|_| !left.is_empty()) {
            let nearest = (0..left.len()).max_by_key(|index| {
                (self.weight(last, left[*index], CLASSES - 1), std::cmp::Reverse(*index))
            });
            order.push(left.remove(nearest.unwrap_or(0)));
        }
        order
    }
}
