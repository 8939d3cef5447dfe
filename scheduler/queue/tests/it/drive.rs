//! Drives a planner through virtual time: arrivals come, jobs end after their true run time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_scheduler_core::Space;
use muster_scheduler_queue::job::{Hold, Job, JobId};
use muster_scheduler_queue::planner::{Plan, Planner};
use muster_scheduler_queue::time::Time;

/// A job and how long it truly runs.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) job: Job,
    pub(crate) runs: i64,
}

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) started: BTreeMap<JobId, Time>,
    pub(crate) ended: BTreeMap<JobId, Time>,
    /// Thousandths of GPUs times milliseconds.
    pub(crate) busy: i64,
    pub(crate) evictions: usize,
    pub(crate) cycles: usize,
    pub(crate) last: Time,
}

pub(crate) struct Drive {
    pub(crate) planner: Planner,
    pub(crate) space: Space,
    running: BTreeMap<JobId, (Arc<Hold>, Time, Time)>,
    ends: BTreeSet<(Time, JobId)>,
    truth: BTreeMap<JobId, i64>,
    pub(crate) outcome: Outcome,
}

impl Drive {
    pub(crate) fn new(planner: Planner, space: Space) -> Self {
        Self {
            planner,
            space,
            running: BTreeMap::new(),
            ends: BTreeSet::new(),
            truth: BTreeMap::new(),
            outcome: Outcome::default(),
        }
    }

    /// Runs until nothing is left to do; `watch` sees every decision before it is carried out.
    pub(crate) fn run(
        mut self,
        mut arrivals: Vec<Arrival>,
        mut watch: impl FnMut(&Planner, &Space, Time, &Plan),
    ) -> Outcome {
        arrivals.sort_by_key(|arrival| (arrival.job.submitted, arrival.job.id));
        let mut arrivals = arrivals.into_iter().peekable();
        let mut now = Time(i64::MIN);
        loop {
            let arrival = arrivals.peek().map(|arrival| arrival.job.submitted);
            let end = self.ends.first().map(|(at, _)| *at);
            let boundary = (self.planner.waiting_count() > 0)
                .then(|| self.planner.next_boundary(now.max(Time(0))))
                .flatten();
            let Some(next) = [arrival, end, boundary].into_iter().flatten().min() else { break };
            now = next;
            while let Some((_, id)) = self.ends.first().copied().filter(|(at, _)| *at <= now) {
                self.end(id, now);
                self.planner.ended(id, now).unwrap();
                self.outcome.ended.insert(id, now);
            }
            while let Some(arrival) = arrivals.next_if(|arrival| arrival.job.submitted <= now) {
                self.truth.insert(arrival.job.id, arrival.runs);
                self.planner.submit(arrival.job).unwrap();
            }
            self.decide(now, &mut watch);
        }
        self.outcome.last = now;
        self.outcome
    }

    pub(crate) fn decide(&mut self, now: Time, watch: &mut impl FnMut(&Planner, &Space, Time, &Plan)) {
        for turn in 0.. {
            assert!(turn < 50, "evictions go on for ever");
            let plan = self.planner.cycle(now, &self.space);
            self.outcome.cycles += 1;
            watch(&self.planner, &self.space, now, &plan);
            self.planner.commit(&plan, &mut self.space, now).unwrap();
            for start in &plan.start {
                let ends = now + self.truth[&start.job];
                self.running.insert(start.job, (Arc::clone(&start.hold), now, ends));
                self.ends.insert((ends, start.job));
                self.outcome.started.entry(start.job).or_insert(now);
            }
            if plan.preempt.is_empty() {
                break;
            }
            for victim in plan.preempt.iter().flat_map(|preempt| &preempt.victims) {
                self.end(*victim, now);
                self.planner.evicted(*victim, now).unwrap();
                self.outcome.evictions += 1;
            }
        }
    }

    fn end(&mut self, id: JobId, now: Time) {
        let (hold, since, ends) = self.running.remove(&id).unwrap();
        self.ends.remove(&(ends, id));
        self.space.give_back_slots(&hold.form.demand, &hold.slots);
        self.outcome.busy += hold.form.gpus() * now.since(since);
    }
}
