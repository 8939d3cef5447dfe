//! A way to end a group from another thread.

use std::sync::Arc;

use crate::control::{Control, Failure};

/// Ends the group of a communicator, also while that one is inside a call. Made by
/// [`Communicator::aborter`](crate::Communicator::aborter).
#[derive(Clone, Debug)]
pub struct Aborter {
    control: Arc<Control>,
    rank: usize,
}

impl Aborter {
    pub(crate) fn new(control: Arc<Control>, rank: usize) -> Self {
        Self { control, rank }
    }

    /// Ends the group: calls of all ranks, those under way too, fail with
    /// [`Error::Aborted`](crate::Error::Aborted). Nothing happens to a group that has failed before.
    pub fn abort(&self) {
        self.control.abort(Failure::Aborted { rank: self.rank });
    }
}
