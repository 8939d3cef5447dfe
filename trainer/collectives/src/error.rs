//! What can go wrong in a collective.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::call::Call;
use crate::network::CredentialsError;

/// A failed collective or rendezvous. After any error of a collective the communicator stays failed: form a new
/// group to go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A peer this group depends on is gone.
    #[error("lost rank {rank} on {host}: {cause}")]
    PeerLost {
        /// The rank that is gone.
        rank: usize,
        /// Its host, as it called itself at the rendezvous.
        host: String,
        /// What is known about the loss.
        cause: LossCause,
    },
    /// Peers did not arrive before the deadline: stopped, stuck or far too slow.
    #[error("{} did not reach {call} within {after:?}", ranks(waiting_for))]
    Timeout {
        /// The ranks that had not arrived when the group gave up.
        waiting_for: Vec<usize>,
        /// The call this rank was waiting in.
        call: Call,
        /// The deadline of one collective.
        after: Duration,
    },
    /// Two ranks made different calls at the same point of the program.
    #[error("the ranks disagree: rank {rank} makes {call} but rank {other_rank} makes {other_call}")]
    Mismatch {
        /// One of the ranks.
        rank: usize,
        /// Its call.
        call: Call,
        /// The other rank.
        other_rank: usize,
        /// The other rank's call.
        other_call: Call,
    },
    /// A rank passes another number of elements to a rank than that one expects.
    #[error("rank {from} passes {sent} elements for rank {to}, which expects {expected}, in {call}")]
    Parts {
        /// Where the elements come from.
        from: usize,
        /// Where they go to.
        to: usize,
        /// Elements passed.
        sent: usize,
        /// Elements expected.
        expected: usize,
        /// This rank's call.
        call: Call,
    },
    /// A rank gave the group up on purpose.
    #[error("rank {rank} aborted the group")]
    Aborted {
        /// The rank.
        rank: usize,
    },
    /// The other ranks went on without this one, which did not say in time that it is still there.
    #[error("the other ranks went on without rank {rank}, which was silent for too long: it must join anew")]
    GivenUp {
        /// This rank.
        rank: usize,
    },
    /// The thread that makes a communicator's calls is gone.
    #[error("the call was dropped: its communicator was closed before its turn came")]
    Closed,
    /// A call in the background has not ended yet.
    #[error("the call has not ended after {after:?}; it goes on in the background")]
    StillRunning {
        /// How long this rank waited.
        after: Duration,
    },
    /// An argument is unusable.
    #[error("{0}")]
    InvalidArgument(String),
    /// The arena has no room for a buffer; ask for a larger one in the options.
    #[error(
        "no room for a buffer of {wanted} bytes: {free} of {capacity} bytes of the arena are free; \
         raise `arena_bytes`"
    )]
    ArenaFull {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes free (perhaps not in one piece).
        free: usize,
        /// Bytes in total.
        capacity: usize,
    },
    /// Not all ranks came to the rendezvous in time.
    #[error(
        "{} of {world_size} did not join at {place} within {after:?}{}{}",
        ranks(missing),
        gone(hung_up),
        because(refused.as_ref())
    )]
    NotJoined {
        /// The ranks that are missing.
        missing: Vec<usize>,
        /// How many ranks the group has.
        world_size: usize,
        /// The socket or the address of the rendezvous.
        place: String,
        /// How long the ranks that came waited.
        after: Duration,
        /// Those of the missing ranks that had come.
        hung_up: Box<[HungUp]>,
        /// Why the last refused newcomer was refused.
        refused: Option<String>,
    },
    /// Rank 0 gave the group up, since others did not come.
    #[error("rank 0 gave the group up: {reason}")]
    NotFormed {
        /// This rank, which had come.
        rank: usize,
        /// The error of rank 0: who is missing.
        reason: String,
    },
    /// The group was [called off](crate::CallOff) while it formed.
    #[error("rank {rank} gave the group up before it had formed: {reason}")]
    CalledOff {
        /// This rank.
        rank: usize,
        /// Who does not come, in the words of whoever called it off.
        reason: String,
    },
    /// Rank 0 did not form the group in time.
    #[error("rank {rank} found no group at {place} within {after:?}: {cause}")]
    NoRendezvous {
        /// This rank.
        rank: usize,
        /// The socket or the address of the rendezvous.
        place: String,
        /// How long this rank tried.
        after: Duration,
        /// What the last attempt ended with.
        cause: String,
    },
    /// Too few ranks are left to be sure that the silent ones have not gone on by themselves.
    #[error(
        "{} did not answer, so they may have gone on without {}, who are too few to go on by themselves: \
         start the group anew",
        ranks(silent),
        ranks(left)
    )]
    Minority {
        /// The ranks that want to go on.
        left: Vec<usize>,
        /// The ranks whose state is unknown.
        silent: Vec<usize>,
    },
    /// Rank 0 does not accept this rank.
    #[error("rank 0 refused rank {rank}: {reason}")]
    Refused {
        /// This rank.
        rank: usize,
        /// What does not fit.
        reason: String,
    },
    /// Certificates stand between this rank and another: those of one of them are missing, expired or of another
    /// authority.
    #[error("rank {rank} cannot talk with {peer} under TLS: {reason}")]
    Untrusted {
        /// This rank.
        rank: usize,
        /// The other one, with its address.
        peer: String,
        /// What is wrong, as this rank sees the other one.
        reason: String,
    },
    /// The files with this rank's certificates cannot be used.
    #[error("the certificates of this rank: {0}")]
    Credentials(Box<CredentialsError>),
    /// The operating system refused something.
    #[error("cannot {action}: {source}")]
    System {
        /// What was attempted.
        action: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl From<CredentialsError> for Error {
    fn from(error: CredentialsError) -> Self {
        Self::Credentials(Box::new(error))
    }
}

impl Error {
    /// It tells of a group that did not come about since ranks did not come, or went.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::NotJoined { .. }
                | Self::NotFormed { .. }
                | Self::NoRendezvous { .. }
                | Self::PeerLost { .. }
                | Self::Timeout { .. }
        )
    }

    pub(crate) fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::System { action, source }
    }
}

/// A rank that had come while the group formed, and hung up before it was complete: its process ended, or it lost
/// patience.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HungUp {
    /// The rank.
    pub rank: usize,
    /// Its process, as its host numbers it.
    pub process: u32,
    /// How its host calls itself.
    pub host: String,
}

impl fmt::Display for HungUp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "rank {} (process {} on {})", self.rank, self.process, self.host)
    }
}

/// What is known about the loss of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossCause {
    /// Its process ended without leaving the group: killed, crashed or exited early.
    Died,
    /// It left the group while others still called collectives.
    Left,
    /// Nothing was heard of it for too long: it is stopped, or its host or the network between is down.
    Silent,
    /// Its connection carried what no rank of this group sends.
    Garbled,
    /// Another rank of its host could read its memory before, and was then refused.
    Unreadable,
}

impl LossCause {
    const ALL: [Self; 5] = [Self::Died, Self::Left, Self::Silent, Self::Garbled, Self::Unreadable];

    pub(crate) fn code(self) -> u64 {
        self as u64
    }

    pub(crate) fn from_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.code() == code)
    }
}

impl fmt::Display for LossCause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Died => "its process ended (killed, crashed or exited early)",
            Self::Left => "it left the group while others still waited for it",
            Self::Silent => "nothing was heard of it for too long (stopped, or its host or network is down)",
            Self::Garbled => "its connection carried what no rank of this group sends",
            Self::Unreadable => {
                "its memory can no longer be read (a security module may have come to forbid it)"
            }
        })
    }
}

fn ranks(ranks: &[usize]) -> String {
    let list = ranks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if ranks.len() == 1 { format!("rank {list}") } else { format!("ranks {list}") }
}

fn gone(hung_up: &[HungUp]) -> String {
    if hung_up.is_empty() {
        return String::new();
    }
    let list = hung_up.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("; had come, but died or gave up: {list}")
}

fn because(refused: Option<&String>) -> String {
    refused.map_or_else(String::new, |reason| format!(" (refused: {reason})"))
}
