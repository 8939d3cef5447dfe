//! How a save ended, known to who waits for it and to the next save.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::Failure;
use super::worker::Staging;
use crate::receipt::ShardReceipt;

/// Where the background thread leaves the result of one save, and the memory that it no longer needs: who finds the
/// one finds the other.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    result: Option<Result<ShardReceipt, Arc<Failure>>>,
    staging: Option<Staging>,
    /// Whether somebody was told of a failure.
    told: bool,
}

/// The save has not ended in time.
#[derive(Debug)]
pub(super) struct StillRunning;

impl Outcome {
    /// The first result stays.
    pub(super) fn set(&self, result: Result<ShardReceipt, Failure>, staging: Staging) {
        let mut state = self.state.lock();
        if state.result.is_none() {
            state.result = Some(result.map_err(Arc::new));
            state.staging = Some(staging);
            self.ended.notify_all();
        }
    }

    /// The memory of the save, once it has ended; empty when it was taken before.
    pub(super) fn take_staging(&self, patience: Duration) -> Result<Staging, StillRunning> {
        let mut state = self.ended_within(patience).ok_or(StillRunning)?;
        Ok(state.staging.take().unwrap_or_default())
    }

    /// The result, within `patience`.
    pub(super) fn wait(&self, patience: Duration) -> Option<Result<ShardReceipt, Arc<Failure>>> {
        let mut state = self.ended_within(patience)?;
        state.told = true;
        state.result.clone()
    }

    /// A failure that nobody was told of yet, now that somebody is.
    pub(super) fn untold_failure(&self, patience: Duration) -> Result<Option<Arc<Failure>>, StillRunning> {
        let mut state = self.ended_within(patience).ok_or(StillRunning)?;
        let was_told = std::mem::replace(&mut state.told, true);
        Ok(state.result.clone().and_then(Result::err).filter(|_| !was_told))
    }

    fn ended_within(&self, patience: Duration) -> Option<MutexGuard<'_, State>> {
        // What the clock cannot count is as good as a century.
        let century = Duration::from_hours(100 * 365 * 24);
        let deadline = Instant::now() + patience.min(century);
        let mut state = self.state.lock();
        while state.result.is_none() {
            if self.ended.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        state.result.is_some().then_some(state)
    }
}
