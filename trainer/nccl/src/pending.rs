//! Work that was given to the device and may not have ended.

use std::sync::Arc;

use crate::buffer::Memory;
use crate::call::Call;
use crate::cuda::Cuda;
use crate::error::Error;
use crate::group::Group;
use crate::queue::{Queue, wait_for_mark};

/// A call under way. Its buffers may be given to further calls, which come after it, and are read with
/// [`Communicator::read`](crate::Communicator::read), which waits for it.
///
/// Dropping it waits too, and forgets how it ended: the communicator remembers.
#[derive(Debug)]
#[must_use = "dropping it waits for the call"]
pub struct Pending<Q: Queue = Cuda> {
    group: Arc<Group<Q>>,
    call: Call,
    mark: Q::Mark,
    /// The memory that the device may write to; empty when the call has ended.
    memory: Vec<Arc<Memory<Q>>>,
}

impl<Q: Queue> Pending<Q> {
    pub(crate) fn new(group: &Arc<Group<Q>>, call: Call, mark: Q::Mark, memory: Vec<Arc<Memory<Q>>>) -> Self {
        Self { group: Arc::clone(group), call, mark, memory }
    }

    /// Whether the call has ended, well or not. Returns at once.
    pub fn is_complete(&self) -> bool {
        self.group.is_over() || self.group.queue.is_complete(&self.mark).unwrap_or(true)
    }

    /// Returns when the call has ended on this rank; at the latest after
    /// [`Options::deadline`](crate::Options::deadline), when the group is ended.
    pub fn wait(mut self) -> Result<(), Error> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), Error> {
        if self.memory.is_empty() {
            return Ok(());
        }
        let result = self.until_complete();
        if result.is_ok() || self.is_left_by_device() {
            self.memory.clear();
        } else {
            // Better lost than written to by the device when it belongs to somebody else.
            std::mem::take(&mut self.memory).into_iter().for_each(std::mem::forget);
        }
        result
    }

    fn until_complete(&self) -> Result<(), Error> {
        let (group, deadline) = (&self.group, self.group.options.deadline);
        let look = || Ok(group.queue.is_complete(&self.mark)?.then_some(()));
        match group.watch(&self.call, deadline, look) {
            Ok(Some(())) => Ok(()),
            // Closing waited for it.
            Err(Error::Closed { .. }) if self.is_left_by_device() => Ok(()),
            Ok(None) => {
                let (rank, host) = (group.options.rank, group.options.host.clone());
                Err(group.break_with(Error::Timeout { rank, host, call: self.call, after: deadline }))
            }
            Err(error) => Err(error),
        }
    }

    /// After the end of the group: whether the device leaves the memory alone, which it does soon.
    fn is_left_by_device(&self) -> bool {
        let group = &self.group;
        // A broken device runs nothing any more, but who knows.
        wait_for_mark(&group.queue, &self.mark, group.options.abort_deadline).unwrap_or(false)
    }
}

impl<Q: Queue> Drop for Pending<Q> {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::warn!(%error, "nobody waited for a call that failed");
        }
    }
}
