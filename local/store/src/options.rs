use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::handle::Handle;
use crate::log::Log;

/// Where the store reads the time from: ages of revisions only.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Instant + Send + Sync>);

impl Clock {
    /// A clock of the caller's making.
    pub fn new(now: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(crate) fn now(&self) -> Instant {
        (self.0)()
    }
}

impl Default for Clock {
    /// The machine's monotonic clock.
    fn default() -> Self {
        Self::new(Instant::now)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Clock")
    }
}

/// How much history is kept and how the writer works.
#[derive(Debug, Clone)]
pub struct Options {
    /// Largest object, in bytes of JSON; deletions are never too large.
    pub object_bytes: usize,
    /// Newest events of each resource that are kept in memory.
    pub history_events: usize,
    /// Bytes of events of each resource that are kept in memory.
    pub history_bytes: usize,
    /// Newest revisions of the whole store that are kept in the log although superseded.
    pub retained_revisions: u64,
    /// Age above which a superseded revision is dropped from the log even if it is among the newest.
    pub retained_age: Duration,
    /// Bytes of JSON of the newest writes whose parsed form, which is several times larger, stays in memory; objects
    /// above a sixteenth of it are left out.
    pub parsed_bytes: usize,
    /// Writes that may wait for the writer before callers are made to wait, and at most go into one batch.
    pub queued_writes: usize,
    /// Where ages are read from.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            // What etcd takes in one request.
            object_bytes: 3 << 19,
            history_events: 10_000,
            history_bytes: 8 << 20,
            retained_revisions: 20_000,
            retained_age: Duration::from_mins(30),
            parsed_bytes: 1 << 19,
            queued_writes: 1_024,
            clock: Clock::default(),
        }
    }
}

/// Opens stores.
#[derive(Debug)]
pub struct Store;

impl Store {
    /// Loads the log's objects and recent history and starts the writer thread.
    pub fn open(options: Options, log: Box<dyn Log>) -> Result<Handle, Error> {
        Handle::open(options, log)
    }
}
