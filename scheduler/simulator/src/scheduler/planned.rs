//! The policies of the queue crate, on its planner.

use std::sync::Arc;

use muster_scheduler_core::{GangDemand, Space};
use muster_scheduler_queue::job::{Form, Gate, Job as QueuedJob, JobId, Restart};
use muster_scheduler_queue::planner::Planner;
use muster_scheduler_queue::policy::Policy;
use muster_scheduler_queue::time::Time;
use muster_scheduler_queue::tree::QueueTree;

use crate::scheduler::{Decisions, ScheduleError, Scheduler, Start, charged};
use crate::workload::Job;

/// Muster's planner under one of its policies.
#[derive(Debug, Clone)]
pub struct Planned {
    planner: Planner,
    orders_ranks: bool,
}

impl Planned {
    /// A planner without jobs.
    pub fn new(policy: Policy, tree: QueueTree, orders_ranks: bool) -> Self {
        Self { planner: Planner::new(policy, tree), orders_ranks }
    }
}

impl Scheduler for Planned {
    fn submit(&mut self, id: JobId, job: &Job, space: &mut Space) -> Result<(), ScheduleError> {
        let tree = self.planner.tree();
        let queue = tree
            .queue(&job.queue)
            .ok_or_else(|| ScheduleError::UnknownQueue { job: job.name.clone(), queue: job.queue.clone() })?;
        let charge = tree.charge(charged(tree, job));
        let gang = job.gang();
        let demand = GangDemand::new(space, &gang, gang.waiting.len())
            .map_err(|waiting| ScheduleError::Topology { job: job.name.clone(), waiting })?
            .demand;
        let form = Form { label: format!("{} pods", job.pods()), demand, charge };
        self.planner.submit(QueuedJob {
            id,
            name: job.name.clone(),
            user: job.user.clone(),
            queue,
            submitted: job.submitted,
            priority: job.priority,
            quality: 0,
            limit: job.limit,
            forms: Arc::from([form]),
            gate: Gate::Open,
            restart: Restart { checkpoint_every: job.checkpoint_every, ..Restart::default() },
            reservation: None,
            nearness: None,
        })?;
        Ok(())
    }

    fn decide(&mut self, now: Time, space: &mut Space) -> Result<Decisions, ScheduleError> {
        let plan = self.planner.cycle(now, space);
        self.planner.commit(&plan, space, now)?;
        let start = plan.start.into_iter().map(|start| Start {
            job: start.job,
            demand: start.hold.form.demand.clone(),
            slots: start.hold.slots.clone(),
        });
        let evict = plan.preempt.into_iter().flat_map(|preempt| preempt.victims);
        Ok(Decisions { start: start.collect(), evict: evict.collect() })
    }

    fn ended(&mut self, id: JobId, now: Time) -> Result<(), ScheduleError> {
        Ok(self.planner.ended(id, now)?)
    }

    fn stopped(&mut self, id: JobId, now: Time) -> Result<(), ScheduleError> {
        Ok(self.planner.evicted(id, now)?)
    }

    fn nodes_changed(&mut self) {
        self.planner.nodes_changed();
    }

    fn asks_again_at(&self, now: Time) -> Option<Time> {
        self.planner.next_boundary(now)
    }

    fn orders_ranks(&self) -> bool {
        self.orders_ranks
    }
}
