//! A way to end a group from another thread.

use std::fmt;
use std::sync::{Arc, Weak};

use crate::group::{Failure, Group};
use crate::queue::Queue;

/// Ends the group of a communicator on this rank, also while that one joins or waits. Made by
/// [`Communicator::aborter`](crate::Communicator::aborter) and [`Joining::aborter`](crate::Joining::aborter).
#[derive(Clone)]
pub struct Aborter(Weak<dyn Target>);

/// A group, whatever its device.
trait Target: Send + Sync {
    fn abort(self: Arc<Self>, cause: String) -> bool;
}

impl<Q: Queue> Target for Group<Q> {
    fn abort(self: Arc<Self>, cause: String) -> bool {
        self.end(Failure::Aborted(cause))
    }
}

impl Aborter {
    pub(crate) fn new<Q: Queue>(group: &Arc<Group<Q>>) -> Self {
        let group: Weak<Group<Q>> = Arc::downgrade(group);
        Self(group)
    }

    /// Ends the group: what is under way on this rank's device is broken off, and calls and waits fail with
    /// [`Error::Aborted`](crate::Error::Aborted), which repeats the cause. Returns when NCCL has let go of the group,
    /// and false when it does not within [`Options::abort_deadline`](crate::Options::abort_deadline). Nothing happens to
    /// a group that has ended before.
    ///
    /// Ranks elsewhere are not told: each must end its own (see [`Watch`](crate::Watch)).
    pub fn abort(&self, cause: impl Into<String>) -> bool {
        self.0.upgrade().is_none_or(|group| group.abort(cause.into()))
    }
}

impl fmt::Debug for Aborter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Aborter")
    }
}
