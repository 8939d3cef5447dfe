//! Who waits for places that are nearer to each other than those that are free.
//!
//! A gang that is spread over the cluster loads the links that all share, and may itself run slower. Like Slurm's
//! `--switches=COUNT@TIME` it waits for something better, but no longer than that is worth: by its expected run time and
//! by what it would lose. Others take the room meanwhile, so hardly anything stays idle; where there is far more room
//! than the gang needs, nobody would, and it starts at once.

use std::collections::BTreeMap;
use std::fmt;

use muster_scheduler_core::space::Space;
use muster_scheduler_core::{Demand, Nearest, Slots};

use crate::job::{Job, JobId};
use crate::policy::Patience;
use crate::time::{Milliseconds, Time};

/// How many times as long a step may take with nobody minding.
const TOLERATED: f64 = 2.5;
/// Where so many times the room that a gang needs is free, it does not wait rather than be divided.
const AMPLE: u32 = 6;
/// Nor does one that takes more than one in so many parts of a domain: it would have to be drained.
const PARTS: f64 = 2.0;

/// What a job waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nearer {
    /// When it stops to wait for that.
    pub until: Time,
    /// Domains of the highest level that it would be divided between.
    pub domains: usize,
    /// Instead of so many.
    pub instead_of: usize,
    /// How long a step would take, in hundredths of the shortest possible.
    pub step_percent: u32,
}

impl fmt::Display for Nearer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("it waits for nearer places: on those that are free ")?;
        let slower = f64::from(self.step_percent) / 100.0;
        let is_slower = slower > TOLERATED;
        if self.domains > self.instead_of {
            let Self { domains, instead_of, .. } = self;
            write!(formatter, "it would be divided between {domains} domains instead of {instead_of}")?;
            if is_slower {
                formatter.write_str(", and ")?;
            }
        }
        if is_slower || self.domains <= self.instead_of {
            write!(formatter, "a step would take {slower:.1} times as long")?;
        }
        Ok(())
    }
}

/// A form of a job, by its fingerprint and index, and the largest nodes that it is compared on.
type Key = ((u64, u32), usize, u32);

/// What is known of how near gangs could be, and who waits for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nearness {
    /// On the nodes without any job.
    known: BTreeMap<Key, Option<Nearest>>,
    waiting: BTreeMap<JobId, Nearer>,
}

impl Nearness {
    pub(crate) fn forget_nodes(&mut self) {
        self.known.clear();
    }

    /// A new decision begins.
    pub(crate) fn begin(&mut self) {
        self.waiting.clear();
    }

    /// What the job waits for, as of the last decision.
    pub(crate) fn of(&self, job: JobId) -> Option<&Nearer> {
        self.waiting.get(&job)
    }

    /// The next moment at which somebody stops to wait.
    pub(crate) fn next_end(&self, now: Time) -> Option<Time> {
        self.waiting.values().map(|nearer| nearer.until).filter(|until| *until > now).min()
    }

    /// Whether a job waits for nearer places than these; notes it.
    pub(crate) fn waits(
        &mut self,
        asked: &Asked<'_>,
        free: &mut Space,
        emptied: impl FnOnce() -> Space,
    ) -> bool {
        let Asked { job, demand, .. } = asked;
        let pods: u32 = demand.groups.iter().map(|group| group.count).sum();
        if pods < 2 || !demand.near.is_empty() || asked.now.since(job.submitted) >= asked.most() {
            return false;
        }
        let found = free.nearness(demand, asked.slots);
        let key = (asked.forms, asked.form, found.node_gpus);
        let known = self.known.entry(key);
        let Some(nearest) = *known.or_insert_with(|| emptied().nearest(demand, found.node_gpus)) else {
            return false;
        };
        let slower = found.step / nearest.step.max(1e-9);
        let mut patience = f64::from(asked.patience.slowed_percent) * (slower - TOLERATED).max(0.0);
        let ample = |free: &mut Space| {
            demand.groups.iter().all(|group| free.fits(&group.shape) >= group.count.saturating_mul(AMPLE))
        };
        if found.domains > nearest.domains && !ample(free) {
            patience += f64::from(asked.patience.divided_percent) * (1.0 - PARTS * nearest.part).max(0.0);
        }
        let patience = (patience / 100.0 * asked.length as f64) as Milliseconds;
        let until = job.submitted + patience.min(asked.most());
        if until <= asked.now {
            return false;
        }
        let nearer = Nearer {
            until,
            domains: found.domains,
            instead_of: nearest.domains.min(found.domains),
            step_percent: (slower * 100.0).round() as u32,
        };
        self.waiting.insert(job.id, nearer);
        true
    }
}

/// A job that could start.
pub(crate) struct Asked<'a> {
    pub(crate) job: &'a Job,
    /// Fingerprint of its forms.
    pub(crate) forms: (u64, u32),
    /// Which of them.
    pub(crate) form: usize,
    pub(crate) demand: &'a Demand,
    /// Where.
    pub(crate) slots: &'a Slots,
    pub(crate) length: Milliseconds,
    pub(crate) patience: Patience,
    pub(crate) now: Time,
}

impl Asked<'_> {
    fn most(&self) -> Milliseconds {
        self.job.nearness.unwrap_or(self.patience.most).min(self.patience.most)
    }
}
