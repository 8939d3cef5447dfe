//! A rank's place in its group, and its patience.

use std::time::Duration;

/// Who this rank is and how long it waits.
#[derive(Clone, Debug)]
pub struct Options {
    /// This rank, from 0.
    pub rank: usize,
    /// Number of ranks, each on a GPU of its own.
    pub world_size: usize,
    /// How this host is called in errors.
    pub host: String,
    /// How long all ranks may take to come together.
    pub join_deadline: Duration,
    /// How long a call may take from the moment in which somebody waits for it.
    pub deadline: Duration,
    /// How long NCCL may take to end a group whose ranks are gone. When it takes longer, memory that its kernels might
    /// still write to is never freed, and the process should end.
    pub abort_deadline: Duration,
}

impl Options {
    /// Options with the usual deadlines: 5 minutes to join, 1 minute a call, half a minute to end.
    pub fn new(rank: usize, world_size: usize) -> Self {
        Self {
            rank,
            world_size,
            host: "this host".into(),
            join_deadline: Duration::from_mins(5),
            deadline: Duration::from_mins(1),
            abort_deadline: Duration::from_secs(30),
        }
    }
}
