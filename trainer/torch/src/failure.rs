//! A failed request as the program is told it.

use std::time::Duration;

use muster_collectives::{Error, HungUp};

/// What went wrong, in words and for a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Which kind of failure it is.
    pub kind: Kind,
    /// What happened, with the rank to blame where there is one.
    pub message: String,
    /// The rank to blame, among all ranks of the job.
    pub rank: Option<usize>,
}

/// Kinds of failures that a program may treat differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A rank is gone.
    PeerLost,
    /// Ranks did not come in time.
    Timeout,
    /// The request is wrong; the group is as it was.
    Invalid,
    /// The group was closed before.
    Closed,
    /// Anything else that ended the group.
    Group,
}

impl Kind {
    /// Its name in Python.
    pub fn name(self) -> &'static str {
        match self {
            Self::PeerLost => "peer_lost",
            Self::Timeout => "timeout",
            Self::Invalid => "invalid",
            Self::Closed => "closed",
            Self::Group => "group",
        }
    }
}

impl Failure {
    /// What an error of a group means whose ranks are `ranks` among all ranks of the job.
    pub fn new(error: Error, ranks: &[usize]) -> Self {
        let global = |rank: usize| ranks.get(rank).copied().unwrap_or(rank);
        let all = |ranks: Vec<usize>| ranks.into_iter().map(global).collect::<Vec<_>>();
        let error = match error {
            Error::PeerLost { rank, host, cause } => Error::PeerLost { rank: global(rank), host, cause },
            Error::Aborted { rank } => Error::Aborted { rank: global(rank) },
            Error::GivenUp { rank } => Error::GivenUp { rank: global(rank) },
            Error::Timeout { waiting_for, call, after } => {
                Error::Timeout { waiting_for: all(waiting_for), call, after }
            }
            Error::Mismatch { rank, call, other_rank, other_call } => {
                Error::Mismatch { rank: global(rank), call, other_rank: global(other_rank), other_call }
            }
            Error::NotJoined { missing, world_size, place, after, hung_up, refused } => Error::NotJoined {
                missing: all(missing),
                world_size,
                place,
                after,
                hung_up: hung_up.into_iter().map(|gone| HungUp { rank: global(gone.rank), ..gone }).collect(),
                refused,
            },
            Error::NoRendezvous { rank, place, after, cause } => {
                Error::NoRendezvous { rank: global(rank), place, after, cause }
            }
            other => other,
        };
        let (kind, rank) = match &error {
            Error::PeerLost { rank, .. } => (Kind::PeerLost, Some(*rank)),
            Error::Aborted { rank } | Error::Mismatch { other_rank: rank, .. } => (Kind::Group, Some(*rank)),
            Error::Timeout { waiting_for: missing, .. } | Error::NotJoined { missing, .. } => {
                (Kind::Timeout, missing.first().copied())
            }
            Error::NoRendezvous { .. } | Error::NotFormed { .. } => (Kind::Timeout, ranks.first().copied()),
            Error::InvalidArgument(_) => (Kind::Invalid, None),
            Error::Closed => (Kind::Closed, None),
            _ => (Kind::Group, None),
        };
        Self { kind, message: error.to_string(), rank }
    }

    /// That of a request which the group no longer makes.
    pub(crate) fn closed() -> Self {
        Self::new(Error::Closed, &[])
    }

    /// That of a request which has not ended after so long.
    pub fn unfinished(after: Duration) -> Self {
        let message = format!("the collective has not ended after {after:?}; it goes on in the background");
        Self { kind: Kind::Timeout, message, rank: None }
    }

    /// That of a request whose work panicked.
    pub(crate) fn panicked() -> Self {
        let message = "the collective panicked, which is a mistake in Muster; its group is closed".to_owned();
        Self { kind: Kind::Group, message, rank: None }
    }
}

#[cfg(test)]
mod tests {
    use muster_collectives::LossCause;

    use super::*;

    #[test]
    fn ranks_are_named_as_the_whole_job_knows_them() {
        let lost = Error::PeerLost { rank: 1, host: "node-b".into(), cause: LossCause::Died };
        let failure = Failure::new(lost, &[2, 5]);
        assert_eq!((failure.kind, failure.rank), (Kind::PeerLost, Some(5)));
        assert!(failure.message.starts_with("lost rank 5 on node-b: "), "{failure}");
        let late = Error::NotJoined {
            missing: vec![0, 2],
            world_size: 3,
            place: "here".into(),
            after: Duration::from_secs(1),
            hung_up: Box::default(),
            refused: None,
        };
        let failure = Failure::new(late, &[4, 6, 9]);
        assert_eq!((failure.kind, failure.rank), (Kind::Timeout, Some(4)));
        assert!(failure.message.starts_with("ranks 4, 9 of 3 did not join"), "{failure}");
        let wrong = Failure::new(Error::InvalidArgument("no".into()), &[]);
        assert_eq!((wrong.kind, wrong.rank), (Kind::Invalid, None));
    }
}
