//! The plain scheduler of the baselines: by priority, then first come first served; who does not fit is passed
//! over; gangs start as a whole; nothing is planned ahead.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use muster_scheduler_core::{Demand, GangDemand, Space};
use muster_scheduler_queue::job::JobId;
use muster_scheduler_queue::time::Time;
use muster_scheduler_queue::tree::{Charge, QueueId, QueueTree};

use crate::scheduler::{Decisions, Placer, ScheduleError, Scheduler, Start, charged};
use crate::workload::Job;

#[derive(Debug, Clone)]
struct Waiter {
    queue: QueueId,
    charge: Charge,
    demand: Demand,
    /// Jobs with equal numbers ask for the same.
    kind: usize,
    place: Place,
}

type Place = (Reverse<i64>, Time, JobId);

/// A queue in front of a [`Placer`].
pub struct Greedy {
    tree: QueueTree,
    placer: Box<dyn Placer>,
    line: BTreeMap<Place, Waiter>,
    running: BTreeMap<JobId, Waiter>,
    kinds: Vec<Demand>,
}

impl Greedy {
    /// An empty queue.
    pub fn new(tree: QueueTree, placer: Box<dyn Placer>) -> Self {
        Self { tree, placer, line: BTreeMap::new(), running: BTreeMap::new(), kinds: Vec::new() }
    }

    fn kind(&mut self, demand: &Demand) -> usize {
        self.kinds.iter().position(|kind| kind == demand).unwrap_or_else(|| {
            self.kinds.push(demand.clone());
            self.kinds.len() - 1
        })
    }
}

impl Scheduler for Greedy {
    fn submit(&mut self, id: JobId, job: &Job, space: &mut Space) -> Result<(), ScheduleError> {
        let unknown = || ScheduleError::UnknownQueue { job: job.name.clone(), queue: job.queue.clone() };
        let queue = self.tree.queue(&job.queue).ok_or_else(unknown)?;
        let charge = self.tree.charge(charged(&self.tree, job));
        let gang = job.gang();
        let demand = GangDemand::new(space, &gang, gang.waiting.len())
            .map_err(|waiting| ScheduleError::Topology { job: job.name.clone(), waiting })?
            .demand;
        let kind = self.kind(&demand);
        self.placer.came(&demand, space);
        let place = (Reverse(job.priority), job.submitted, id);
        self.line.insert(place, Waiter { queue, charge, demand, kind, place });
        Ok(())
    }

    fn decide(&mut self, _now: Time, space: &mut Space) -> Result<Decisions, ScheduleError> {
        let mut decisions = Decisions::default();
        let mut started = Vec::new();
        let mut refused: HashSet<usize> = HashSet::new();
        for (place, waiter) in &self.line {
            if refused.contains(&waiter.kind) || !self.tree.admits(waiter.queue, &waiter.charge) {
                continue;
            }
            if let Some(slots) = self.placer.place(space, &waiter.demand) {
                space.take_slots(&waiter.demand, &slots);
                self.tree.add(waiter.queue, &waiter.charge);
                decisions.start.push(Start { job: place.2, demand: waiter.demand.clone(), slots });
                started.push(*place);
            } else {
                refused.insert(waiter.kind);
            }
        }
        for place in started {
            if let Some(waiter) = self.line.remove(&place) {
                self.running.insert(place.2, waiter);
            }
        }
        Ok(decisions)
    }

    fn ended(&mut self, id: JobId, _now: Time) -> Result<(), ScheduleError> {
        if let Some(waiter) = self.running.remove(&id) {
            self.tree.remove(waiter.queue, &waiter.charge);
        }
        Ok(())
    }

    fn stopped(&mut self, id: JobId, _now: Time) -> Result<(), ScheduleError> {
        if let Some(waiter) = self.running.remove(&id) {
            self.tree.remove(waiter.queue, &waiter.charge);
            self.line.insert(waiter.place, waiter);
        }
        Ok(())
    }
}
