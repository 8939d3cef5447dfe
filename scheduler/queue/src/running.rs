//! What happens to jobs that run: they start, change what they have, end, or are evicted.

use std::sync::Arc;

use muster_scheduler_core::search::Slots;

use crate::charge::Charge;
use crate::estimate::Estimate;
use crate::job::{Form, Hold, Job, JobId, Running};
use crate::planner::{EventError, Planner};
use crate::time::Time;
use crate::tree::QueueId;

/// Whether a charge is counted as used, or no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    Up,
    Down,
}

impl Planner {
    /// A waiting job was started as planned: its room is taken.
    ///
    /// # Errors
    /// [`EventError::NotThere`] when it does not wait.
    pub fn started(&mut self, job: JobId, hold: &Arc<Hold>, now: Time) -> Result<(), EventError> {
        let waiter = self.backlog.remove(job).ok_or(EventError::NotThere { job, expected: "waiting" })?;
        self.promises.remove(&job);
        let Estimate { length, basis } = waiter.estimate;
        let job = waiter.job;
        self.run(
            Running { job, hold: Arc::clone(hold), since: now, ends: now + length, basis, leaving_for: None },
            now,
        );
        Ok(())
    }

    /// A job runs already, since before this planner knew it.
    ///
    /// # Errors
    /// [`EventError`] when it is known or its queue is not.
    pub fn adopt(&mut self, job: Job, hold: Hold, since: Time, now: Time) -> Result<(), EventError> {
        let id = job.id;
        self.submit(job)?;
        let waiter = self.backlog.remove(id).ok_or(EventError::NotThere { job: id, expected: "waiting" })?;
        let Estimate { length, basis } = waiter.estimate;
        let job = waiter.job;
        self.run(
            Running { job, hold: Arc::new(hold), since, ends: since + length, basis, leaving_for: None },
            now,
        );
        self.slipped = true;
        Ok(())
    }

    fn run(&mut self, running: Running, now: Time) {
        self.count(running.job.queue, &running.hold.form.charge, Count::Up, now);
        self.running.insert(running.job.id, running);
    }

    fn count(&mut self, queue: QueueId, charge: &Charge, count: Count, now: Time) {
        match count {
            Count::Up => self.tree.add(queue, charge),
            Count::Down => self.tree.remove(queue, charge),
        }
        let sign = if count == Count::Up { 1.0 } else { -1.0 };
        self.fair.change(&self.tree, queue, charge, sign, now);
    }

    /// A running job ended by itself; its room is free. How long it ran is learned.
    ///
    /// # Errors
    /// [`EventError::NotThere`] when it does not run.
    pub fn ended(&mut self, job: JobId, now: Time) -> Result<(), EventError> {
        let running = self.stop(job, now)?;
        self.evictions.remove(&job);
        if self.policy.learns {
            let traits = self.traits(&running.job);
            self.estimator.observe(&traits, now.since(running.since));
            // What is learned matters most at the beginning; who comes later is estimated with all of it.
            if self.estimator.observed().is_power_of_two() {
                self.estimate_anew();
            }
        }
        Ok(())
    }

    /// What a running job has is something else now: pods have joined it, were lost, or have ended. Its quota, its
    /// queue's fair share and the room that its end gives back follow. Tell it whenever it may have changed; that
    /// it has not costs nothing. A charge above what the places need keeps quota for lost pods that come back.
    ///
    /// # Errors
    /// [`EventError::NotThere`] when it does not run.
    pub fn rehold(&mut self, job: JobId, form: Form, slots: Slots, now: Time) -> Result<(), EventError> {
        let running = self.running.get_mut(&job).ok_or(EventError::NotThere { job, expected: "running" })?;
        let queue = running.job.queue;
        let hold = Hold { queue, form, slots };
        if running.hold.has_the_same_as(&hold) {
            return Ok(());
        }
        let before = std::mem::replace(&mut running.hold, Arc::new(hold));
        self.count(queue, &before.form.charge, Count::Down, now);
        let charge = self.running[&job].hold.form.charge.clone();
        self.count(queue, &charge, Count::Up, now);
        (self.gained, self.slipped) = (true, true);
        Ok(())
    }

    /// A running job was evicted; its room is free. It waits again at its old place in line. One whose pods have to
    /// be made anew first is held back by [`Planner::set_gate`], until it is [amended](Planner::amend) to what
    /// they ask for.
    ///
    /// # Errors
    /// [`EventError::NotThere`] when it does not run.
    pub fn evicted(&mut self, job: JobId, now: Time) -> Result<(), EventError> {
        self.put_back(job, now)?;
        *self.evictions.entry(job).or_default() += 1;
        Ok(())
    }

    /// A job that was started did not come to run, its binding failed: it waits again at its old place in line, as
    /// if it had not been started.
    ///
    /// # Errors
    /// [`EventError::NotThere`] when it does not run.
    pub fn put_back(&mut self, job: JobId, now: Time) -> Result<(), EventError> {
        let running = self.stop(job, now)?;
        let estimate = self.estimate(&running.job);
        self.backlog.insert(running.job, estimate);
        Ok(())
    }

    pub(crate) fn stop(&mut self, job: JobId, now: Time) -> Result<Running, EventError> {
        let running = self.running.remove(&job).ok_or(EventError::NotThere { job, expected: "running" })?;
        self.count(running.job.queue, &running.hold.form.charge, Count::Down, now);
        self.gained |= now < running.ends;
        Ok(running)
    }

    /// Gives jobs that outran their estimates new ones.
    pub(crate) fn watch_overruns(&mut self, now: Time) {
        let late: Vec<JobId> =
            self.running.iter().filter(|(_, running)| running.ends <= now).map(|(id, _)| *id).collect();
        for id in late {
            let Some(running) = self.running.get(&id) else { continue };
            let preemptor = running.leaving_for.and_then(|preemptor| self.promises.get(&preemptor));
            if preemptor.is_some_and(|promise| promise.pinned) {
                continue;
            }
            self.outruns(id, now);
        }
    }

    /// A job stays longer than it was supposed to.
    fn outruns(&mut self, id: JobId, now: Time) {
        let Some(running) = self.running.get(&id) else { return };
        let (since, traits) = (running.since, self.traits(&running.job));
        let estimate = self.estimator.beyond(&traits, now.since(since));
        if let Some(running) = self.running.get_mut(&id) {
            running.leaving_for = None;
            running.ends = (since + estimate.length).max(now + 1);
            running.basis = estimate.basis;
        }
        self.slipped = true;
    }

    /// A job that was to be evicted could not be: it runs on, and its place is promised to nobody. The attempt
    /// counts as an eviction, so that others are tried in the end.
    ///
    /// # Errors
    /// [`EventError::NotThere`] when it is not being evicted.
    pub fn not_evicted(&mut self, job: JobId, now: Time) -> Result<(), EventError> {
        let leaving_for = self.running.get(&job).and_then(|running| running.leaving_for);
        let preemptor = leaving_for.ok_or(EventError::NotThere { job, expected: "being evicted" })?;
        self.promises.remove(&preemptor);
        *self.evictions.entry(job).or_default() += 1;
        self.outruns(job, now);
        Ok(())
    }
}
