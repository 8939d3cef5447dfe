//! Which of the large gangs that wait should start so that as little as possible of what is free stays idle.
//!
//! Large gangs of the same kind of cluster rarely fit beside each other: taken in order, the first leaves a rest in
//! which no other has room. Backfill that looks at all of them at once (Shmueli and Feitelson) chooses the set that
//! fills the free nodes best, older gangs counting for more, and leaves a little for light jobs to come. Nobody is
//! kept back: those that are not chosen are asked after those that are, and soon enough room is promised to them.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_scheduler_core::space::Space;

use crate::backlog::Rank;
use crate::job::{Form, Job, JobId};

/// A gang is large when it asks for more than this part of the cluster's GPUs.
const LARGE: i64 = 10;
/// This part of the cluster is left to light jobs where there is a choice.
const LEFT: i64 = 64;
/// Gangs looked at: the first in line.
const MOST: usize = 64;
/// Parts into which the cluster's GPUs are divided at the most.
const PARTS: i64 = 1024;
/// A gang counts for its size; this many points of score (hours of waiting, say) double that.
const DOUBLES: f64 = 2.0;

/// Large gangs that do not belong to the set that fills what is free best.
pub(crate) fn left_over<'a>(
    space: &Space,
    waiting: impl Iterator<Item = (Rank, &'a Arc<Job>)>,
) -> BTreeSet<JobId> {
    let size = |job: &Job| job.forms.first().map_or(0, Form::gpus);
    let gpus = |slots: u32| i64::from(slots) * 1000;
    let all: i64 = space.nodes().map(|(_, node)| gpus(node.gpu_slots)).sum();
    let whole = space.nodes().filter(|(id, node)| space.room(*id).devices.whole() == node.gpu_slots);
    let free = whole.map(|(_, node)| gpus(node.gpu_slots)).sum::<i64>() - all / LEFT;
    let mut large: Vec<(Rank, &Job)> = waiting
        .filter(|(rank, job)| size(job) > all / LARGE && !rank.is_overdue())
        .map(|(rank, job)| (rank, &**job))
        .collect();
    if large.len() < 2 {
        return BTreeSet::new();
    }
    large.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
    large.truncate(MOST);
    let part = (all / PARTS).max(1000);
    let mut best = vec![Set::default(); (free.max(0) / part) as usize + 1];
    for (index, (rank, job)) in large.iter().enumerate() {
        let parts = (size(job) as u64).div_ceil(part as u64) as usize;
        let value = parts as f64 * (1.0 + rank.score().max(0.0) / DOUBLES);
        for room in (parts..best.len()).rev() {
            let with = best[room - parts].with(index, value);
            if with.value > best[room].value {
                best[room] = with;
            }
        }
    }
    let chosen = best.last().copied().unwrap_or_default();
    large.iter().enumerate().filter(|(index, _)| !chosen.has(*index)).map(|(_, (_, job))| job.id).collect()
}

/// Some of the gangs, by index.
#[derive(Debug, Clone, Copy, Default)]
struct Set {
    value: f64,
    members: u64,
}

impl Set {
    fn with(self, index: usize, value: f64) -> Self {
        Self { value: self.value + value, members: self.members | 1 << index }
    }

    fn has(self, index: usize) -> bool {
        self.members >> index & 1 == 1
    }
}
