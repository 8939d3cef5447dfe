//! The planner: what waits, what runs, and what was promised. Events in, plans out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_scheduler_core::search::Slots;
use muster_scheduler_core::space::Space;

use crate::backlog::Backlog;
use crate::calendar::Calendar;
use crate::estimate::{Basis, Estimate, Estimator, Traits, family};
use crate::fair::FairShare;
use crate::job::{Gate, Hold, Job, JobId, Running};
use crate::policy::Policy;
use crate::time::{Milliseconds, Time};
use crate::tree::{QueueId, QueueTree};

/// Why the planner does not take an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The job is known already.
    #[error("{0} is known already; numbers must not be used twice")]
    Known(JobId),
    /// The job is not known, or not in this state.
    #[error("{job} is not {expected}")]
    NotThere {
        /// The job.
        job: JobId,
        /// What it would have to be.
        expected: &'static str,
    },
    /// The queue is not in the tree.
    #[error("{0}: its queue does not exist")]
    UnknownQueue(JobId),
    /// A job needs at least one form, and a form at least one pod.
    #[error("{0}: it has no form with at least one pod")]
    NoForm(JobId),
}

/// Start this job now.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// The job.
    pub job: JobId,
    /// Which of its forms.
    pub form: usize,
    /// What it gets.
    pub hold: Arc<Hold>,
    /// When it is supposed to end.
    pub ends: Time,
}

/// Room promised to a job that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Promise {
    /// The job.
    pub job: JobId,
    /// Which of its forms.
    pub form: usize,
    /// What it will get.
    pub hold: Arc<Hold>,
    /// When it is supposed to start at the earliest.
    pub from: Time,
    /// When it starts at the latest, were all estimates exact: its room is held from then on.
    pub latest: Time,
    /// For how long, in milliseconds.
    pub length: Milliseconds,
    /// What the moment rests on; [`Basis::Supposed`] when some end before it is only supposed.
    pub basis: Basis,
    /// Jobs are being evicted for it.
    pub(crate) pinned: bool,
}

/// Evict these jobs, all of them, so that a job can start.
#[derive(Debug, Clone, PartialEq)]
pub struct Preempt {
    /// For whom.
    pub job: JobId,
    /// Whom.
    pub victims: Vec<JobId>,
    /// What the job gets once they are gone.
    pub hold: Arc<Hold>,
    /// Work lost, in milliseconds of thousandths of a GPU.
    pub loss: i64,
}

/// What to do now. Everything in it was planned together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Jobs to start, in this order; take their room and tell [`Planner::started`].
    pub start: Vec<Start>,
    /// What is promised to jobs that wait.
    pub reserve: Vec<Promise>,
    /// Jobs to evict; tell [`Planner::evicted`] when they are gone.
    pub preempt: Vec<Preempt>,
}

/// Queues, jobs and promises. All time is passed in.
#[derive(Debug, Clone)]
pub struct Planner {
    pub(crate) policy: Policy,
    pub(crate) tree: QueueTree,
    pub(crate) fair: FairShare,
    pub(crate) estimator: Estimator,
    pub(crate) calendar: Calendar,
    pub(crate) backlog: Backlog,
    pub(crate) running: BTreeMap<JobId, Running>,
    pub(crate) promises: BTreeMap<JobId, Promise>,
    pub(crate) evictions: BTreeMap<JobId, u32>,
    /// Forms that found no room in any future, by queue and fingerprint.
    pub(crate) hopeless: BTreeSet<(QueueId, (u64, u32))>,
    /// Something ended sooner than supposed: promises may move forward.
    pub(crate) gained: bool,
    /// Something ends later than supposed, or nodes changed: promises must be looked at.
    pub(crate) slipped: bool,
}

impl Planner {
    /// A planner without jobs.
    pub fn new(policy: Policy, tree: QueueTree) -> Self {
        let fair = FairShare::new(&tree, policy.half_life);
        let mut estimator = Estimator::default();
        estimator.correct_limits = policy.learns;
        Self {
            policy,
            tree,
            fair,
            estimator,
            calendar: Calendar::default(),
            backlog: Backlog::default(),
            running: BTreeMap::new(),
            promises: BTreeMap::new(),
            evictions: BTreeMap::new(),
            hopeless: BTreeSet::new(),
            gained: false,
            slipped: false,
        }
    }

    /// The queues, with what is used of their quota.
    pub fn tree(&self) -> &QueueTree {
        &self.tree
    }

    /// Decayed usage of the queues.
    pub fn fair_share(&self) -> &FairShare {
        &self.fair
    }

    /// What it knows of run times; change its settings before the first job.
    pub fn estimator(&mut self) -> &mut Estimator {
        &mut self.estimator
    }

    /// Windows of maintenance and advance reservations. What is promised is looked at again.
    pub fn calendar(&mut self) -> &mut Calendar {
        self.nodes_changed();
        &mut self.calendar
    }

    /// How many jobs wait.
    pub fn waiting_count(&self) -> usize {
        self.backlog.len()
    }

    /// A job that waits.
    pub fn waiting(&self, job: JobId) -> Option<&Job> {
        self.backlog.get(job).map(|waiter| &*waiter.job)
    }

    /// Jobs that run.
    pub fn running(&self) -> impl Iterator<Item = &Running> {
        self.running.values()
    }

    /// What was promised when last planned.
    pub fn promises(&self) -> impl Iterator<Item = &Promise> {
        self.promises.values()
    }

    /// Replaces the queues. Jobs keep their queues by name; what runs is counted anew.
    ///
    /// # Errors
    /// [`EventError::UnknownQueue`] when a job's queue would be gone; nothing changes then.
    pub fn set_tree(&mut self, mut tree: QueueTree, now: Time) -> Result<(), EventError> {
        let renamed = |old: &QueueTree, queue: QueueId, job: JobId| {
            tree.queue(old.name(queue)).ok_or(EventError::UnknownQueue(job))
        };
        let mut waiting = Vec::new();
        for waiter in self.backlog.iter() {
            let queue = renamed(&self.tree, waiter.job.queue, waiter.job.id)?;
            waiting.push((Job { queue, ..(*waiter.job).clone() }, waiter.estimate));
        }
        let mut running = self.running.clone();
        for runner in running.values_mut() {
            runner.job.queue = renamed(&self.tree, runner.job.queue, runner.job.id)?;
            runner.hold = Arc::new(Hold { queue: runner.job.queue, ..(*runner.hold).clone() });
        }
        tree = tree.emptied();
        let mut fair = FairShare::new(&tree, self.policy.half_life);
        for runner in running.values() {
            tree.add(runner.job.queue, &runner.hold.form.charge);
            fair.change(&tree, runner.job.queue, &runner.hold.form.charge, 1.0, now);
        }
        (self.tree, self.fair, self.running) = (tree, fair, running);
        for (job, estimate) in waiting {
            self.backlog.insert(Arc::new(job), estimate);
        }
        self.promises.clear();
        self.hopeless.clear();
        Ok(())
    }

    /// Nodes came, went or changed: what is promised is looked at again.
    pub fn nodes_changed(&mut self) {
        self.gained = true;
        self.slipped = true;
        self.hopeless.clear();
    }

    /// A job came.
    ///
    /// # Errors
    /// [`EventError`] when it makes no sense; nothing changes then.
    pub fn submit(&mut self, job: Job) -> Result<(), EventError> {
        if self.backlog.contains(job.id) || self.running.contains_key(&job.id) {
            return Err(EventError::Known(job.id));
        }
        if job.queue.index() >= self.tree.queues().count() {
            return Err(EventError::UnknownQueue(job.id));
        }
        if job.forms.is_empty() || job.forms.iter().any(|form| form.pods() == 0) {
            return Err(EventError::NoForm(job.id));
        }
        let estimate = self.estimate(&job);
        self.backlog.insert(Arc::new(job), estimate);
        Ok(())
    }

    /// Whether a waiting job may be considered.
    ///
    /// # Errors
    /// [`EventError::NotThere`] when it does not wait.
    pub fn set_gate(&mut self, job: JobId, gate: Gate) -> Result<(), EventError> {
        let waiter = self.backlog.get(job).ok_or(EventError::NotThere { job, expected: "waiting" })?;
        let (mut changed, estimate) = ((*waiter.job).clone(), waiter.estimate);
        if changed.gate != gate {
            changed.gate = gate;
            self.backlog.insert(Arc::new(changed), estimate);
            self.promises.remove(&job);
        }
        Ok(())
    }

    /// A waiting job was taken back by its owner.
    ///
    /// # Errors
    /// [`EventError::NotThere`] when it does not wait.
    pub fn withdraw(&mut self, job: JobId) -> Result<(), EventError> {
        self.backlog.remove(job).ok_or(EventError::NotThere { job, expected: "waiting" })?;
        self.evictions.remove(&job);
        if self.promises.remove(&job).is_some() {
            self.gained = true;
        }
        Ok(())
    }

    /// A waiting job was started as planned: its room is taken.
    ///
    /// # Errors
    /// [`EventError::NotThere`] when it does not wait.
    pub fn started(&mut self, job: JobId, hold: &Arc<Hold>, now: Time) -> Result<(), EventError> {
        let waiter = self.backlog.remove(job).ok_or(EventError::NotThere { job, expected: "waiting" })?;
        self.promises.remove(&job);
        let Estimate { length, basis } = waiter.estimate;
        let job = Arc::unwrap_or_clone(waiter.job);
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
        let job = Arc::unwrap_or_clone(waiter.job);
        self.run(
            Running { job, hold: Arc::new(hold), since, ends: since + length, basis, leaving_for: None },
            now,
        );
        self.slipped = true;
        Ok(())
    }

    fn run(&mut self, running: Running, now: Time) {
        let queue = running.job.queue;
        self.tree.add(queue, &running.hold.form.charge);
        self.fair.change(&self.tree, queue, &running.hold.form.charge, 1.0, now);
        self.running.insert(running.job.id, running);
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

    /// A running job was evicted; its room is free. It waits again at its old place in line.
    ///
    /// # Errors
    /// [`EventError::NotThere`] when it does not run.
    pub fn evicted(&mut self, job: JobId, now: Time) -> Result<(), EventError> {
        let running = self.stop(job, now)?;
        *self.evictions.entry(job).or_default() += 1;
        let estimate = self.estimate(&running.job);
        self.backlog.insert(Arc::new(running.job), estimate);
        Ok(())
    }

    pub(crate) fn stop(&mut self, job: JobId, now: Time) -> Result<Running, EventError> {
        let running = self.running.remove(&job).ok_or(EventError::NotThere { job, expected: "running" })?;
        let queue = running.job.queue;
        self.tree.remove(queue, &running.hold.form.charge);
        self.fair.change(&self.tree, queue, &running.hold.form.charge, -1.0, now);
        self.gained |= now < running.ends;
        Ok(running)
    }

    /// Starts all that a plan starts, on the planner and on the free room.
    ///
    /// # Errors
    /// [`EventError::NotThere`] when the plan is not of this planner.
    pub fn commit(&mut self, plan: &Plan, space: &mut Space, now: Time) -> Result<(), EventError> {
        for start in &plan.start {
            self.started(start.job, &start.hold, now)?;
            space.take_slots(&start.hold.form.demand, &start.hold.slots);
        }
        Ok(())
    }

    /// What is known of a job's run time.
    pub(crate) fn traits(&self, job: &Job) -> Traits {
        Traits {
            user: job.user.clone(),
            queue: self.tree.name(job.queue).to_owned(),
            family: family(&job.name).to_owned(),
            limit: job.limit,
        }
    }

    pub(crate) fn estimate(&self, job: &Job) -> Estimate {
        if self.policy.learns || job.limit.is_none() {
            self.estimator.estimate(&self.traits(job))
        } else {
            Estimate { length: job.limit.unwrap_or(1).max(1), basis: Basis::Declared }
        }
    }

    fn estimate_anew(&mut self) {
        let estimates: BTreeMap<JobId, Estimate> =
            self.backlog.iter().map(|waiter| (waiter.job.id, self.estimate(&waiter.job))).collect();
        self.backlog.estimate_anew(|job| {
            estimates.get(&job.id).copied().unwrap_or(Estimate { length: 1, basis: Basis::Supposed })
        });
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
            let (since, traits) = (running.since, self.traits(&running.job));
            let estimate = self.estimator.beyond(&traits, now.since(since));
            if let Some(running) = self.running.get_mut(&id) {
                running.leaving_for = None;
                running.ends = (since + estimate.length).max(now + 1);
                running.basis = estimate.basis;
            }
            self.slipped = true;
        }
    }
}

/// Places of a hold, for those who want nothing else.
impl Hold {
    /// What a job would have with these places.
    pub fn new(job: &Job, form: usize, slots: Slots) -> Option<Self> {
        Some(Self { queue: job.queue, form: job.forms.get(form)?.clone(), slots })
    }
}
