//! Proposals to move running jobs so that one blocked by fragmentation can start.

use std::sync::Arc;

use muster_scheduler_core::space::Space;

use crate::cycle::request;
use crate::job::{Hold, JobId, Running};
use crate::planner::Planner;
use crate::time::{Milliseconds, Time};
use crate::timeline::Timeline;

/// Jobs moved for one at the most.
const MOST_MOVES: usize = 64;

/// Moves that together make room for a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Consolidation {
    /// The job that starts.
    pub job: JobId,
    /// What it gets.
    pub hold: Arc<Hold>,
    /// Who moves, and what they get instead.
    pub moves: Vec<Move>,
    /// Work lost and repeated, in milliseconds of thousandths of a GPU.
    pub loss: i64,
}

/// A running job stops at its last checkpoint and continues elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    /// The job.
    pub job: JobId,
    /// What it gets.
    pub hold: Arc<Hold>,
}

impl Planner {
    /// The cheapest moves found of jobs able to continue from a checkpoint that let `job` start now, with all
    /// that moved running again at once. `restart` is what a restart takes, in milliseconds.
    pub fn consolidate(
        &self,
        job: JobId,
        now: Time,
        space: &Space,
        restart: Milliseconds,
    ) -> Option<Consolidation> {
        let waiter = self.backlog.get(job)?;
        let mut timeline = self.timeline(now, space);
        for promise in self.promises.values().filter(|promise| promise.job != job) {
            timeline.promise(promise.job, &promise.hold, promise.latest.max(now), promise.length);
        }
        let cost = |running: &Running| {
            let gpus = running.hold.form.gpus().max(i64::from(running.hold.form.pods()));
            running.loss(now).saturating_add(restart.saturating_mul(gpus))
        };
        let mut movable: Vec<(i64, JobId)> = self
            .running
            .values()
            .filter(|running| running.job.restart.movable && running.leaving_for.is_none())
            .map(|running| (cost(running), running.job.id))
            .collect();
        movable.sort_unstable();
        let by_node = self.node_by_node(&movable);
        let orders = [movable.iter().map(|(_, id)| *id).collect::<Vec<_>>(), by_node];
        let mut best: Option<Consolidation> = None;
        for form in waiter.job.forms.iter() {
            let attempt = Attempt {
                planner: self,
                timeline: &timeline,
                job: &waiter.job,
                form,
                length: waiter.estimate.length,
            };
            for order in &orders {
                let Some((moved, hold, moves)) = attempt.greedy(order, &cost) else { continue };
                let loss = moved.iter().filter_map(|id| self.running.get(id)).map(cost).sum();
                if best.as_ref().is_none_or(|best| loss < best.loss) {
                    best = Some(Consolidation { job, hold, moves, loss });
                }
            }
            if best.is_some() {
                break;
            }
        }
        best
    }

    /// Movable jobs, those first that share the node that is the cheapest to empty.
    fn node_by_node(&self, movable: &[(i64, JobId)]) -> Vec<JobId> {
        let mut nodes: std::collections::BTreeMap<_, Vec<(i64, JobId)>> = std::collections::BTreeMap::new();
        for (cost, id) in movable {
            let Some(running) = self.running.get(id) else { continue };
            for slot in &running.hold.slots.0 {
                let jobs = nodes.entry(slot.node).or_default();
                if jobs.last() != Some(&(*cost, *id)) {
                    jobs.push((*cost, *id));
                }
            }
        }
        let mut order: Vec<_> = nodes
            .into_iter()
            .map(|(node, jobs)| (jobs.iter().map(|(cost, _)| *cost).sum::<i64>(), node, jobs))
            .collect();
        order.sort();
        let mut seen = std::collections::BTreeSet::new();
        let jobs = order.into_iter().flat_map(|(_, _, jobs)| jobs).map(|(_, id)| id);
        jobs.filter(|id| seen.insert(*id)).collect()
    }
}

struct Attempt<'a> {
    planner: &'a Planner,
    timeline: &'a Timeline,
    job: &'a crate::job::Job,
    form: &'a crate::job::Form,
    length: Milliseconds,
}

type Moved = (Vec<JobId>, Arc<Hold>, Vec<Move>);

impl Attempt<'_> {
    /// Moves in order until the job fits and everybody moved has a place, then spares whom it can.
    fn greedy(&self, order: &[JobId], cost: &impl Fn(&Running) -> i64) -> Option<Moved> {
        let mut moved: Vec<JobId> = Vec::new();
        let mut found = None;
        for id in order.iter().take(MOST_MOVES) {
            moved.push(*id);
            found = self.with_moved(&moved);
            if found.is_some() {
                break;
            }
        }
        let mut found = found?;
        let mut costly = moved.clone();
        costly.sort_by_key(|id| std::cmp::Reverse(self.planner.running.get(id).map_or(0, cost)));
        for spared in costly {
            let fewer: Vec<JobId> = moved.iter().copied().filter(|id| *id != spared).collect();
            if let Some(better) = self.with_moved(&fewer) {
                (moved, found) = (fewer, better);
            }
        }
        Some((moved, found.0, found.1))
    }

    /// The job's places and those of all who move, when there are some for everybody.
    fn with_moved(&self, moved: &[JobId]) -> Option<(Arc<Hold>, Vec<Move>)> {
        let mut timeline = self.timeline.clone();
        for id in moved {
            timeline.evict(*id);
        }
        let slots = timeline.start_now(&request(self.job, self.form, self.length))?;
        let hold = Arc::new(Hold { queue: self.job.queue, form: self.form.clone(), slots });
        timeline.start(self.job.id, Arc::clone(&hold), timeline.now() + self.length);
        let mut running: Vec<&Running> = moved.iter().filter_map(|id| self.planner.running.get(id)).collect();
        running.sort_by_key(|running| (std::cmp::Reverse(running.hold.form.gpus()), running.job.id));
        let mut moves = Vec::new();
        for running in running {
            let left = running.ends.since(timeline.now()).max(1);
            let slots = timeline.start_now(&request(&running.job, &running.hold.form, left))?;
            let hold = Arc::new(Hold { slots, ..(*running.hold).clone() });
            timeline.start(running.job.id, Arc::clone(&hold), running.ends);
            moves.push(Move { job: running.job.id, hold });
        }
        Some((hold, moves))
    }
}
