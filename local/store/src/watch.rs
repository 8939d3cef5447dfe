use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::entry::Entry;
use crate::error::Error;
use crate::state::State;

/// Events that a watcher takes out of the shared history at once.
const BATCH_EVENTS: usize = 128;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was created.
    Added,
    /// It was updated.
    Modified,
    /// It was deleted.
    Deleted,
}

/// One change of one object.
#[derive(Debug, Clone)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The change's revision.
    pub revision: u64,
    /// The object after the change; of a deletion its last state, with the deletion's revision.
    pub entry: Arc<Entry>,
    /// The object before the change; none of a creation.
    pub previous: Option<Arc<Entry>>,
}

impl Event {
    /// Compresses the object: of an event that has been for a while, hardly anybody asks for it.
    pub(crate) fn pack(&self) {
        self.entry.pack();
    }
}

/// Where a watch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the first event after the revision, usually that of a list.
    After(u64),
    /// With the next event.
    Now,
}

/// A stream of the events of one resource, in the order of revisions, without loss and without repetition.
///
/// A watch holds a position in the history that all watches share. It costs the writer nothing and is never
/// waited for: when the history has moved past the position, the watch ends with [`Error::Expired`].
#[derive(Debug)]
pub struct Watch {
    state: Arc<RwLock<State>>,
    changed: watch::Receiver<()>,
    resource: Arc<str>,
    namespace: Option<Arc<str>>,
    /// Taken out of the history, not yet handed out.
    pending: VecDeque<Event>,
    /// Everything up to here was taken out of the history.
    taken: u64,
    /// Everything up to here was handed out.
    delivered: u64,
}

impl Watch {
    pub(crate) fn new(
        shared: &Arc<RwLock<State>>,
        state: &mut State,
        resource: Arc<str>,
        namespace: Option<Arc<str>>,
        start: Start,
    ) -> Result<Self, Error> {
        let revision = match start {
            Start::After(revision) => revision,
            Start::Now => state.revision(),
        };
        state.check_history(&resource, revision)?;
        Ok(Self {
            state: shared.clone(),
            changed: state.subscribe(&resource),
            resource,
            namespace,
            pending: VecDeque::new(),
            taken: revision,
            delivered: revision,
        })
    }

    /// The next event. Dropping the future loses nothing.
    ///
    /// Ends with [`Error::Expired`] when the watch has fallen behind the history that is kept, and with
    /// [`Error::Closed`] once the store is closed and everything before that was handed out.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(event);
            }
            if self.changed.changed().await.is_err() {
                return Err(Error::Closed);
            }
        }
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Result<Option<Event>, Error> {
        if self.pending.is_empty() {
            self.take()?;
        }
        let Some(event) = self.pending.pop_front() else { return Ok(None) };
        self.delivered = if self.pending.is_empty() { self.taken } else { event.revision };
        Ok(Some(event))
    }

    /// The revision up to which every event of the watch has been handed out: what a bookmark may carry. Also
    /// moves when only other resources change.
    pub fn caught_up(&mut self) -> u64 {
        if self.pending.is_empty() {
            // A watch that has expired or whose store was closed learns so from `next`.
            let _ = self.take();
        }
        self.delivered
    }

    /// Takes the next events out of the shared history.
    fn take(&mut self) -> Result<(), Error> {
        // Seen before looking, so that a change that comes after the look wakes `next`.
        self.changed.mark_unchanged();
        let state = self.state.read();
        let (events, complete) =
            state.events_after(&self.resource, self.namespace.as_deref(), self.taken, BATCH_EVENTS)?;
        if events.is_empty() {
            if state.is_closed() {
                return Err(Error::Closed);
            }
            self.delivered = complete;
        }
        self.taken = complete;
        self.pending.extend(events);
        Ok(())
    }
}
