//! A cluster by counts.

use super::scenario::{GPUS, PER_RACK, Share};

/// What is free and used.
#[derive(Debug, Clone)]
pub(super) struct Naive {
    /// GPUs by node.
    pub(super) free: Vec<u32>,
    /// GPUs by queue.
    pub(super) used: Vec<i64>,
    queues: Vec<Share>,
}

impl Naive {
    pub(super) fn empty(nodes: usize, queues: &[Share]) -> Self {
        Self { free: vec![GPUS; nodes], used: vec![0; queues.len()], queues: queues.to_vec() }
    }

    pub(super) fn quota_allows(&self, queue: usize, gpus: i64) -> bool {
        let mut used = self.used.clone();
        used[queue] += gpus;
        let lent: i64 = self.queues.iter().map(Share::lends).sum();
        let beyond = |(used, share): (&i64, &Share)| (used - (share.nominal - share.lends())).max(0);
        let taken: i64 = used.iter().zip(&self.queues).map(beyond).sum();
        let Share { nominal, borrows_at_most, .. } = self.queues[queue];
        taken <= lent && borrows_at_most.is_none_or(|limit| used[queue] <= nominal + limit)
    }

    /// Pods of so many GPUs that fit, wherever they are.
    pub(super) fn fits(&self, gpus: u32) -> u32 {
        self.free.iter().map(|free| free / gpus).sum()
    }

    pub(super) fn has_room(&self, pods: u32, gpus: u32, in_rack: bool) -> bool {
        let racks = self.free.chunks(PER_RACK).map(|rack| rack.iter().map(|free| free / gpus).sum::<u32>());
        if in_rack { racks.max().unwrap_or(0) >= pods } else { self.fits(gpus) >= pods }
    }

    /// Every way to put the pods on the nodes, as GPUs by node.
    pub(super) fn placements(&self, pods: u32, gpus: u32, in_rack: bool) -> Vec<Vec<u32>> {
        let mut found = Vec::new();
        let width = if in_rack { PER_RACK } else { self.free.len().max(1) };
        for from in (0..self.free.len()).step_by(width) {
            let to = (from + width).min(self.free.len());
            self.place(pods, gpus, from, to, &mut vec![0; self.free.len()], &mut found);
        }
        found
    }

    fn place(
        &self,
        pods: u32,
        gpus: u32,
        node: usize,
        to: usize,
        at: &mut Vec<u32>,
        found: &mut Vec<Vec<u32>>,
    ) {
        if pods == 0 {
            found.push(at.clone());
            return;
        }
        if node == to {
            return;
        }
        for here in 0..=pods.min(self.free[node] / gpus) {
            at[node] = here * gpus;
            self.place(pods - here, gpus, node + 1, to, at, found);
        }
        at[node] = 0;
    }

    /// A job with these GPUs by node starts (`sign` 1) or ends (`sign` -1).
    pub(super) fn change(&mut self, nodes: &[u32], queue: usize, sign: i64) {
        for (free, gpus) in self.free.iter_mut().zip(nodes) {
            *free = if sign > 0 { *free - gpus } else { *free + gpus };
        }
        self.used[queue] += sign * nodes.iter().map(|gpus| i64::from(*gpus)).sum::<i64>();
    }
}
