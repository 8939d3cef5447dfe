//! Jobs: gangs of pods that wait for their turn.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use muster_scheduler_core::search::{Demand, Slot, Slots};
use muster_scheduler_core::shape::Shape;
use serde::{Deserialize, Serialize};

use crate::time::{Milliseconds, Time};
use crate::tree::{Charge, QueueId};

/// A job's number; the caller chooses it and never gives it to another job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "job {}", self.0)
    }
}

/// One way in which a job can run: of this size, on this flavor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    /// What people call it, such as `8 pods` or `on a100`.
    pub label: String,
    /// The room that it needs.
    pub demand: Demand,
    /// What it uses of the queue's quota.
    pub charge: Charge,
}

impl Form {
    /// Pods together.
    pub fn pods(&self) -> u32 {
        self.demand.groups.iter().map(|group| group.count).sum()
    }

    /// GPUs together, in thousandths.
    pub fn gpus(&self) -> i64 {
        let of = |group: &muster_scheduler_core::search::Group| {
            i64::from(group.shape.gpu.thousandths()) * i64::from(group.count)
        };
        self.demand.groups.iter().map(of).sum()
    }

    fn hash_into(&self, hasher: &mut impl Hasher) {
        for group in &self.demand.groups {
            (&*group.shape, group.count).hash(hasher);
        }
        (self.demand.levels.required, self.demand.levels.spread, self.demand.levels.slice).hash(hasher);
        self.demand.near.hash(hasher);
        for part in self.charge.iter() {
            part.hash(hasher);
        }
    }
}

/// A number that is the same for equal forms.
pub(crate) fn fingerprint(forms: &[Form]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for form in forms {
        form.hash_into(&mut hasher);
    }
    hasher.finish()
}

/// What keeps a job from being considered at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Gate {
    /// Nothing.
    #[default]
    Open,
    /// Somebody else must let it go first; the text says who.
    Closed(String),
    /// Some of its pods do not exist yet.
    Members {
        /// How many there are.
        present: u32,
        /// How many it needs.
        needed: u32,
    },
}

/// What is lost when a running job is evicted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restart {
    /// It writes a checkpoint this often, in milliseconds, and continues from the last one; `None` when it
    /// starts over.
    pub checkpoint_every: Option<Milliseconds>,
    /// It may be moved to other nodes to make room (consolidation).
    pub movable: bool,
    /// It must never be evicted.
    pub never: bool,
}

/// A gang of pods that starts as a whole or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// Its name.
    pub name: String,
    /// Who submitted it.
    pub user: String,
    /// Its queue.
    pub queue: QueueId,
    /// When it came; it keeps this place in line when it is evicted.
    pub submitted: Time,
    /// Higher goes first.
    pub priority: i64,
    /// Quality of service bought, any scale; a factor of the order within one priority.
    pub quality: i32,
    /// Declared limit of its run time, in milliseconds.
    pub limit: Option<Milliseconds>,
    /// The ways in which it can run, the preferred one first; at least one.
    pub forms: Arc<[Form]>,
    /// What keeps it back.
    pub gate: Gate,
    /// What is lost when it is evicted.
    pub restart: Restart,
    /// The advance reservation in which it runs.
    pub reservation: Option<String>,
    /// How long it waits for places nearer to each other than those that are free, at the most, in milliseconds; what
    /// the policy says, when absent.
    pub nearness: Option<Milliseconds>,
}

/// Room and quota that a job has, or will have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Its queue.
    pub queue: QueueId,
    /// The form in which it runs.
    pub form: Form,
    /// Its places.
    pub slots: Slots,
}

impl Hold {
    /// Whether the other is the same room and quota, in whatever order and under whatever name.
    pub(crate) fn has_the_same_as(&self, other: &Self) -> bool {
        fn places(hold: &Hold) -> Vec<(&Slot, &Shape)> {
            let shape = |slot: &Slot| hold.form.demand.groups.get(slot.group).map(|group| &*group.shape);
            let mut places: Vec<_> =
                hold.slots.0.iter().filter_map(|slot| Some((slot, shape(slot)?))).collect();
            places.sort_by(|(left, _), (right, _)| {
                (left.node, &left.devices[..]).cmp(&(right.node, &right.devices[..]))
            });
            places
        }
        let same = |((left, of_left), (right, of_right)): ((&Slot, &Shape), (&Slot, &Shape))| {
            left.node == right.node && left.devices == right.devices && of_left == of_right
        };
        let (ours, others) = (places(self), places(other));
        self.queue == other.queue
            && self.form.charge == other.form.charge
            && ours.len() == others.len()
            && ours.into_iter().zip(others).all(same)
    }
}

/// A job that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Running {
    /// The job.
    pub job: Arc<Job>,
    /// What it has.
    pub hold: Arc<Hold>,
    /// Since when.
    pub since: Time,
    /// When it is supposed to end.
    pub ends: Time,
    /// What that rests on.
    pub basis: crate::estimate::Basis,
    /// It is being evicted for this job.
    pub leaving_for: Option<JobId>,
}

impl Running {
    /// Work that would be lost by eviction now, in milliseconds of thousandths of a GPU (a job without GPUs counts
    /// as one thousandth a pod).
    pub fn loss(&self, now: Time) -> i64 {
        let ran = now.since(self.since);
        let lost =
            self.job.restart.checkpoint_every.filter(|every| *every > 0).map_or(ran, |every| ran % every);
        let gpus = self.hold.form.gpus().max(i64::from(self.hold.form.pods()));
        lost.saturating_mul(gpus)
    }
}
