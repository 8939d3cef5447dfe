//! Why no worker could be started, or why they could not be watched.

use std::io;

use muster_rendezvous::MemberError;

use crate::{program, world};

/// The launcher itself failed; all workers that had started were killed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Options and variables describe no job.
    #[error(transparent)]
    World(#[from] world::Error),
    /// The command cannot be run.
    #[error(transparent)]
    Program(#[from] program::Error),
    /// Restarts were asked for where the launcher cannot make them.
    #[error(
        "--max-restarts is for jobs of one node or with a rendezvous, and this one has {nodes} nodes: when one pod of it \
         fails, the job's controller starts all of them again"
    )]
    RestartsOfOneNode {
        /// How many it has.
        nodes: usize,
    },
    /// No free port for rank 0.
    #[error("cannot find a free port on {address}: {source}")]
    Port {
        /// Where rank 0 would listen.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// A worker's process cannot be made.
    #[error("cannot start the worker with local rank {local_rank}: {source}")]
    Start {
        /// Which.
        local_rank: usize,
        /// Why.
        source: io::Error,
    },
    /// This node has no place in the job, or the job has failed elsewhere.
    #[error(transparent)]
    Rendezvous(#[from] MemberError),
    /// Signals or processes cannot be watched.
    #[error("cannot watch the workers: {0}")]
    Watch(#[source] io::Error),
}

impl Error {
    /// What the launcher exits with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::World(_) | Self::RestartsOfOneNode { .. } => 2,
            Self::Program(error) => error.exit_code(),
            Self::Port { .. } | Self::Start { .. } | Self::Rendezvous(_) | Self::Watch(_) => 1,
        }
    }
}
