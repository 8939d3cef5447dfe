//! The planner: what waits, what runs, and what was promised. Events in, plans out.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_scheduler_core::search::Slots;
use muster_scheduler_core::space::Space;

use crate::backlog::Backlog;
use crate::calendar::Calendar;
use crate::estimate::{Basis, Estimate, Estimator, Traits, family};
use crate::fair::FairShare;
use crate::hopeless::Hopeless;
use crate::job::{Gate, Hold, Job, JobId, Running};
use crate::nearness::Nearness;
use crate::policy::Policy;
use crate::time::{Milliseconds, Time};
use crate::tree::QueueTree;

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
    /// [`Planner::gains`] when earlier room was last looked for.
    pub(crate) looked: u64,
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
    /// What the nodes have together is to be counted again.
    pub(crate) uncounted: bool,
    pub(crate) estimator: Estimator,
    pub(crate) calendar: Calendar,
    pub(crate) backlog: Backlog,
    pub(crate) running: BTreeMap<JobId, Running>,
    pub(crate) promises: BTreeMap<JobId, Promise>,
    pub(crate) evictions: BTreeMap<JobId, u32>,
    pub(crate) hopeless: Hopeless,
    pub(crate) nearness: Nearness,
    /// Something ended sooner than supposed: promises may move forward.
    pub(crate) gained: bool,
    /// In how many cycles they might have.
    pub(crate) gains: u64,
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
            uncounted: true,
            estimator,
            calendar: Calendar::default(),
            backlog: Backlog::default(),
            running: BTreeMap::new(),
            promises: BTreeMap::new(),
            evictions: BTreeMap::new(),
            hopeless: Hopeless::default(),
            nearness: Nearness::default(),
            gained: false,
            gains: 0,
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

    /// Nodes came, went or changed: what is promised is looked at again.
    pub fn nodes_changed(&mut self) {
        self.gained = true;
        self.slipped = true;
        self.uncounted = true;
        self.hopeless.clear();
        self.nearness.forget_nodes();
    }

    /// A job came.
    ///
    /// # Errors
    /// [`EventError`] when it makes no sense; nothing changes then.
    pub fn submit(&mut self, job: Job) -> Result<(), EventError> {
        if self.backlog.contains(job.id) || self.running.contains_key(&job.id) {
            return Err(EventError::Known(job.id));
        }
        self.check(&job)?;
        let estimate = self.estimate(&job);
        self.backlog.insert(Arc::new(job), estimate);
        Ok(())
    }

    fn check(&self, job: &Job) -> Result<(), EventError> {
        if job.queue.index() >= self.tree.queues().count() {
            return Err(EventError::UnknownQueue(job.id));
        }
        if job.forms.is_empty() || job.forms.iter().any(|form| form.pods() == 0) {
            return Err(EventError::NoForm(job.id));
        }
        Ok(())
    }

    /// A waiting job asks for something else: its pods have changed, or it comes back as new pods after an eviction
    /// (which left it waiting). It keeps its number, its place in line and how often it was evicted. What is
    /// promised to it stays when its forms and its queue do. Its place is that of the earlier submission.
    ///
    /// # Errors
    /// [`EventError`] when it does not wait, or makes no sense; nothing changes then.
    pub fn amend(&mut self, mut job: Job) -> Result<(), EventError> {
        let id = job.id;
        let before = self.backlog.get(id).ok_or(EventError::NotThere { job: id, expected: "waiting" })?;
        self.check(&job)?;
        job.submitted = job.submitted.min(before.job.submitted);
        if (&before.job.forms, before.job.queue, &before.job.gate) != (&job.forms, job.queue, &job.gate) {
            self.gained |= self.promises.remove(&id).is_some();
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

    /// A waiting job was taken back by its owner. How often it was evicted is forgotten with it; a job that comes
    /// back as other pods is [amended](Self::amend) instead.
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

    pub(crate) fn estimate_anew(&mut self) {
        let estimates: BTreeMap<JobId, Estimate> =
            self.backlog.iter().map(|waiter| (waiter.job.id, self.estimate(&waiter.job))).collect();
        self.backlog.estimate_anew(|job| {
            estimates.get(&job.id).copied().unwrap_or(Estimate { length: 1, basis: Basis::Supposed })
        });
    }
}

/// Places of a hold, for those who want nothing else.
impl Hold {
    /// What a job would have with these places.
    pub fn new(job: &Job, form: usize, slots: Slots) -> Option<Self> {
        Some(Self { queue: job.queue, form: job.forms.get(form)?.clone(), slots })
    }
}
