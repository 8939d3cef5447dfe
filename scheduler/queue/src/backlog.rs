//! Jobs that wait, in lanes: jobs of one lane ask for the same, so that when one does not fit, none does.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::estimate::Estimate;
use crate::job::{Form, Gate, Job, JobId, fingerprint};
use crate::policy::{Policy, Weights};
use crate::time::{Milliseconds, Time};
use crate::tree::QueueId;

/// A job that waits.
#[derive(Debug, Clone)]
pub(crate) struct Waiter {
    pub(crate) job: Arc<Job>,
    pub(crate) estimate: Estimate,
    lane: LaneKey,
}

impl Waiter {
    /// A number that is the same for jobs of the same forms.
    pub(crate) fn forms(&self) -> (u64, u32) {
        self.lane.forms
    }
}

/// What jobs of a lane have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LaneKey {
    pub(crate) queue: QueueId,
    /// Fingerprint of the forms, and a number that tells apart forms of one fingerprint.
    pub(crate) forms: (u64, u32),
    priority: i64,
    quality: i32,
    /// Logarithm of the expected length.
    bucket: u32,
    reservation: Option<String>,
}

impl LaneKey {
    /// No job of the lane is expected to be shorter.
    pub(crate) fn least_length(&self) -> Milliseconds {
        1 << self.bucket
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Lane {
    forms: Arc<[Form]>,
    jobs: BTreeSet<(Time, JobId)>,
}

/// Place in the order; the greatest goes first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rank {
    /// Those that lost patience go first, in order of submission.
    overdue: bool,
    priority: i64,
    /// Those that would leave more idle than others go behind these.
    fills: bool,
    score: f64,
    submitted: Time,
    id: JobId,
}

impl Rank {
    /// Whether promises made to the other may be taken back for this one.
    pub(crate) fn outranks(&self, other: &Self) -> bool {
        (self.overdue, self.priority) > (other.overdue, other.priority)
    }

    /// Behind all of the same priority.
    pub(crate) fn behind(self) -> Self {
        Self { fills: false, ..self }
    }

    pub(crate) fn is_overdue(&self) -> bool {
        self.overdue
    }

    pub(crate) fn score(&self) -> f64 {
        self.score
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.overdue, self.priority, self.fills)
            .cmp(&(other.overdue, other.priority, other.fills))
            .then(self.score.total_cmp(&other.score))
            .then((other.submitted, other.id).cmp(&(self.submitted, self.id)))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Rank {}

/// What the order depends on besides the job.
#[derive(Debug, Clone)]
pub(crate) struct Order<'a> {
    pub(crate) policy: &'a Policy,
    /// Fair-share factor by queue; empty when it does not count.
    pub(crate) fair: &'a [f64],
    /// GPUs of the cluster, in thousandths.
    pub(crate) gpus: f64,
    pub(crate) now: Time,
}

impl Order<'_> {
    pub(crate) fn rank(&self, job: &Job, expected: Milliseconds) -> Rank {
        const HOUR: f64 = 3_600_000.0;
        let Weights { age, fair_share, size, light, quality } = self.policy.weights;
        let waited = self.now.since(job.submitted);
        let overdue = self.policy.patience.is_some_and(|patience| waited >= patience);
        let priority = if self.policy.by_priority && !overdue { job.priority } else { 0 };
        let gpus = job.forms.first().map_or(0, Form::gpus) as f64;
        let gpu_hours = gpus / 1000.0 * expected as f64 / HOUR;
        let score = age * waited as f64 / HOUR
            + fair_share * self.fair.get(job.queue.index()).copied().unwrap_or(0.0)
            + size * (gpus / self.gpus.max(1.0)).min(1.0)
            + light / (1.0 + gpu_hours)
            + quality * f64::from(job.quality);
        let score = if overdue { 0.0 } else { score };
        Rank { overdue, priority, fills: true, score, submitted: job.submitted, id: job.id }
    }
}

/// All jobs that wait.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backlog {
    waiters: BTreeMap<JobId, Waiter>,
    lanes: BTreeMap<LaneKey, Lane>,
}

impl Backlog {
    pub(crate) fn get(&self, id: JobId) -> Option<&Waiter> {
        self.waiters.get(&id)
    }

    pub(crate) fn contains(&self, id: JobId) -> bool {
        self.waiters.contains_key(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.waiters.values()
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = (&LaneKey, &Lane)> {
        self.lanes.iter()
    }

    pub(crate) fn insert(&mut self, job: Arc<Job>, estimate: Estimate) {
        self.remove(job.id);
        let mut lane = LaneKey {
            queue: job.queue,
            forms: (fingerprint(&job.forms), 0),
            priority: job.priority,
            quality: job.quality,
            bucket: estimate.length.max(1).ilog2(),
            reservation: job.reservation.clone(),
        };
        while self.lanes.get(&lane).is_some_and(|known| known.forms != job.forms) {
            lane.forms.1 += 1;
        }
        if job.gate == Gate::Open {
            let jobs = self
                .lanes
                .entry(lane.clone())
                .or_insert_with(|| Lane { forms: Arc::clone(&job.forms), jobs: BTreeSet::new() });
            jobs.jobs.insert((job.submitted, job.id));
        }
        self.waiters.insert(job.id, Waiter { job, estimate, lane });
    }

    pub(crate) fn remove(&mut self, id: JobId) -> Option<Waiter> {
        let waiter = self.waiters.remove(&id)?;
        if let Some(lane) = self.lanes.get_mut(&waiter.lane) {
            lane.jobs.remove(&(waiter.job.submitted, id));
            if lane.jobs.is_empty() {
                self.lanes.remove(&waiter.lane);
            }
        }
        Some(waiter)
    }

    /// Changes all jobs; what they are estimated to run stays.
    pub(crate) fn change_all(&mut self, mut change: impl FnMut(&mut Job)) {
        self.lanes.clear();
        for (_, waiter) in std::mem::take(&mut self.waiters) {
            let mut job = Arc::unwrap_or_clone(waiter.job);
            change(&mut job);
            self.insert(Arc::new(job), waiter.estimate);
        }
    }

    /// Estimates all anew.
    pub(crate) fn estimate_anew(&mut self, estimate: impl Fn(&Job) -> Estimate) {
        let jobs: Vec<Arc<Job>> = self.waiters.values().map(|waiter| Arc::clone(&waiter.job)).collect();
        for job in jobs {
            let estimate = estimate(&job);
            self.insert(job, estimate);
        }
    }
}

impl Lane {
    /// The first job of the lane, or the first after another one.
    pub(crate) fn after(&self, last: Option<(Time, JobId)>) -> Option<JobId> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.jobs.range((from, Bound::Unbounded)).next().map(|(_, id)| *id)
    }
}
