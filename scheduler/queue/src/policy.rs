//! Policies by name: in what order jobs are considered, and what happens to those behind one that cannot start.

use serde::{Deserialize, Serialize};

use crate::time::Milliseconds;

/// What one that cannot start does to those behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Blocked {
    /// Everybody behind it waits.
    StopsAll,
    /// Everybody behind it in its queue waits.
    StopsQueue,
    /// It is passed over.
    Passed,
    /// It is promised room at a later time, and passed over by those that do not delay it.
    Reserves {
        /// How many promises there are at a time for each root of the queue tree; 1 is EASY backfill.
        depth: usize,
    },
}

/// Weights of the factors that order jobs of one priority. Factors are from 0 to 1, age is in hours.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Weights {
    /// For each hour of waiting; unbounded, so that everybody's turn comes.
    pub age: f64,
    /// For a queue that used little of its fair share.
    pub fair_share: f64,
    /// For large jobs (below 0: for small ones).
    pub size: f64,
    /// For jobs that are expected to use few GPU-hours: they hardly delay anybody.
    pub light: f64,
    /// For each point of quality of service.
    pub quality: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { age: 1.0, fair_share: 0.0, size: 0.0, light: 0.0, quality: 0.0 }
    }
}

/// How long a job waits until room is promised to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Due {
    /// In hundredths of its expected run time: who runs long can wait longer.
    pub percent: u32,
    /// But no longer than this, in milliseconds.
    pub most: Milliseconds,
}

/// When running jobs may be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preemption {
    /// A job must wait for this long before others are evicted for it, in milliseconds.
    pub after: Milliseconds,
    /// Nobody is evicted before it ran for this long, in milliseconds.
    pub min_runtime: Milliseconds,
    /// Nobody is evicted more often than this.
    pub most_evictions: u32,
    /// Nobody is evicted for a job that is going to start within this time anyway, in milliseconds.
    pub not_within: Milliseconds,
}

impl Default for Preemption {
    fn default() -> Self {
        Self { after: 0, min_runtime: 60_000, most_evictions: 3, not_within: 60_000 }
    }
}

/// How long gangs wait for places that are nearer to each other than those that are free, at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Patience {
    /// Rather than be divided between more domains of the highest level than it need be, in hundredths of the expected
    /// run time; less, the larger the part of a domain that the gang takes, and nothing from half of one on.
    pub divided_percent: u32,
    /// Rather than run slower by what communication takes longer, in hundredths of the time that this would cost;
    /// a step two and a half times as long is tolerated.
    pub slowed_percent: u32,
    /// But no longer than this, in milliseconds.
    pub most: Milliseconds,
}

/// How jobs are ordered and placed in time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Whether higher priority goes first; otherwise priority is ignored.
    pub by_priority: bool,
    /// Factors of the order within one priority; all 0 but age is first come, first served.
    pub weights: Weights,
    /// What a blocked job does to those behind it.
    pub blocked: Blocked,
    /// When room is promised to a blocked job; `None` for at once.
    pub due: Option<Due>,
    /// How much later than promised a job may start for the sake of those behind it, in hundredths of its wait
    /// until then. What is promised with it is the latest start, which never moves back.
    pub slack_percent: u32,
    /// Half-life of usage in the fair share, in milliseconds; `None` counts only what runs.
    pub half_life: Option<Milliseconds>,
    /// Whether gangs wait for nearer places.
    pub nearness: Option<Patience>,
    /// A job that waited this long goes before everybody who did not, whatever their priority, in milliseconds.
    pub patience: Option<Milliseconds>,
    /// Whether jobs are evicted for others.
    pub preemption: Option<Preemption>,
    /// Whether run times are learned from finished jobs; otherwise only declared limits count.
    pub learns: bool,
    /// Whether nodes are kept whole for gangs: pods that fit on one node go where others end when they do, before they
    /// go where it is tight, and of the large gangs those start first that fill the free nodes best together.
    pub packs: bool,
}

const HOUR: Milliseconds = 3_600_000;

/// Names that [`Policy::named`] knows.
pub const NAMES: [&str; 6] = ["fifo", "strict-fifo", "best-effort-fifo", "easy", "conservative", "muster"];

impl Policy {
    const FIFO: Self = Self {
        by_priority: true,
        weights: Weights { age: 1.0, fair_share: 0.0, size: 0.0, light: 0.0, quality: 0.0 },
        blocked: Blocked::StopsQueue,
        due: None,
        slack_percent: 0,
        half_life: None,
        nearness: None,
        patience: None,
        preemption: None,
        learns: false,
        packs: false,
    };

    /// How long a job that is expected to run for `length` waits before room is promised to it.
    pub(crate) fn due_after(&self, length: Milliseconds) -> Milliseconds {
        self.due.map_or(0, |due| due.most.min(length.saturating_mul(i64::from(due.percent)) / 100))
    }

    /// How much later than at first possible a job that waits for so long may start.
    pub(crate) fn slack(&self, wait: Milliseconds) -> Milliseconds {
        wait.saturating_mul(i64::from(self.slack_percent)) / 100
    }

    /// A policy by name, one of [`NAMES`]: `fifo` (submission order over all queues, the first that cannot start
    /// stops everybody), `strict-fifo` and `best-effort-fifo` (as Kueue documents them), `easy` and
    /// `conservative` (backfill on declared limits), `muster`: light jobs first, as they hardly delay anybody; the
    /// rest by age and size, packed so that nodes are free as wholes and large gangs fill them; gangs wait for nearer places as
    /// long as others use the room; whoever waited for long against its run time is promised room, with some slack.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "fifo" => Self { by_priority: false, blocked: Blocked::StopsAll, ..Self::FIFO },
            "strict-fifo" => Self::FIFO,
            "best-effort-fifo" => Self { blocked: Blocked::Passed, ..Self::FIFO },
            "easy" => Self { blocked: Blocked::Reserves { depth: 1 }, ..Self::FIFO },
            "conservative" => Self { blocked: Blocked::Reserves { depth: 64 }, ..Self::FIFO },
            "muster" => Self {
                weights: Weights { age: 1.0, fair_share: 4.0, size: 10.0, light: 20.0, quality: 1.0 },
                blocked: Blocked::Reserves { depth: 1 },
                due: Some(Due { percent: 1500, most: 4 * HOUR }),
                slack_percent: 75,
                half_life: Some(24 * HOUR),
                nearness: Some(Patience { divided_percent: 4000, slowed_percent: 150, most: 8 * HOUR }),
                patience: Some(24 * HOUR),
                preemption: Some(Preemption::default()),
                learns: true,
                packs: true,
                ..Self::FIFO
            },
            _ => return None,
        })
    }
}
