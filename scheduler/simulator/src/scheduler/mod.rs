//! Who decides: policies by name behind one interface.

mod greedy;
mod placers;
mod planned;

use muster_scheduler_core::{Demand, Slots, Space, Waiting};
use muster_scheduler_queue::job::JobId;
use muster_scheduler_queue::planner::EventError;
use muster_scheduler_queue::policy::Policy;
use muster_scheduler_queue::time::Time;
use muster_scheduler_queue::tree::{FlavorResource, QueueTree, TreeError};

pub use greedy::Greedy;
pub use placers::{BestFit, Descent, KueueTopology, Placer, Scatter, VolcanoTiers};
pub use planned::Planned;

use crate::workload::{Job, Workload};

/// Names that [`scheduler`] knows.
pub const NAMES: [&str; 11] = [
    "fifo",
    "strict-fifo",
    "best-effort-fifo",
    "easy",
    "conservative",
    "random",
    "best-fit",
    "fgd",
    "volcano-tier",
    "kueue-tas",
    "muster",
];

/// Start this job in these places.
#[derive(Debug, Clone)]
pub struct Start {
    /// The job.
    pub job: JobId,
    /// What it asked for.
    pub demand: Demand,
    /// What it gets: its pods in rank order.
    pub slots: Slots,
}

/// What happens now.
#[derive(Debug, Clone, Default)]
pub struct Decisions {
    /// Jobs that start; their room is taken already.
    pub start: Vec<Start>,
    /// Jobs that must go, their room is not given back yet.
    pub evict: Vec<JobId>,
}

/// Why a simulation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// No such policy.
    #[error("policy {name:?} is unknown; known are {}", NAMES.join(", "))]
    UnknownPolicy {
        /// What was asked for.
        name: String,
    },
    /// A job names a queue that is not there.
    #[error("job {job}: queue {queue:?} does not exist")]
    UnknownQueue {
        /// The job.
        job: String,
        /// Its queue.
        queue: String,
    },
    /// A job names a level that is not there.
    #[error("job {job}: {waiting}")]
    Topology {
        /// The job.
        job: String,
        /// What core says.
        waiting: Waiting,
    },
    /// The queues do not form a tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The planner was told something that cannot be.
    #[error(transparent)]
    Event(#[from] EventError),
}

/// Decides who starts where. The room it gives is taken from the space at once.
pub trait Scheduler {
    /// A job came.
    ///
    /// # Errors
    /// [`ScheduleError`] when it makes no sense.
    fn submit(&mut self, id: JobId, job: &Job, space: &mut Space) -> Result<(), ScheduleError>;

    /// What to do now.
    ///
    /// # Errors
    /// [`ScheduleError::Event`].
    fn decide(&mut self, now: Time, space: &mut Space) -> Result<Decisions, ScheduleError>;

    /// A running job ended; its room is free.
    ///
    /// # Errors
    /// [`ScheduleError::Event`].
    fn ended(&mut self, id: JobId, now: Time) -> Result<(), ScheduleError>;

    /// A running job was stopped and waits again; its room is free.
    ///
    /// # Errors
    /// [`ScheduleError::Event`].
    fn stopped(&mut self, id: JobId, now: Time) -> Result<(), ScheduleError>;

    /// Nodes came or went.
    fn nodes_changed(&mut self) {}

    /// The next moment after `now` at which it wants to be asked, whether anything happens or not.
    fn asks_again_at(&self, _now: Time) -> Option<Time> {
        None
    }

    /// Whether ranks are numbered along the network; otherwise they are in the order of the places.
    fn orders_ranks(&self) -> bool {
        false
    }
}

/// The policy of a name.
///
/// # Errors
/// [`ScheduleError`].
pub fn scheduler(name: &str, workload: &Workload) -> Result<Box<dyn Scheduler>, ScheduleError> {
    let tree = if workload.queues.is_empty() {
        QueueTree::unlimited(workload.jobs.first().map_or("default", |job| &job.queue))
    } else {
        QueueTree::build(workload.queues.clone())?
    };
    if let Some(policy) = Policy::named(name) {
        return Ok(Box::new(Planned::new(policy, tree, name == "muster")));
    }
    let placer: Box<dyn Placer> = match name {
        "random" => Box::new(Scatter::new(1)),
        "best-fit" => Box::new(BestFit),
        "fgd" => Box::new(Descent::default()),
        "volcano-tier" => Box::new(VolcanoTiers),
        "kueue-tas" => Box::new(KueueTopology),
        _ => return Err(ScheduleError::UnknownPolicy { name: name.to_owned() }),
    };
    Ok(Box::new(Greedy::new(tree, placer)))
}

/// What a job uses of the quota there is, by resource and thousandths.
fn charged<'a>(tree: &'a QueueTree, job: &Job) -> Vec<(&'a FlavorResource, i64)> {
    let amount = |resource: &FlavorResource| -> i64 {
        job.roles.iter().map(|role| role.pod.requests.get(&resource.resource) * i64::from(role.pods)).sum()
    };
    tree.resources().iter().map(|resource| (resource, amount(resource))).collect()
}
