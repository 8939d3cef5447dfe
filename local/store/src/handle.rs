use std::sync::Arc;

use parking_lot::RwLock;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::entry::Entry;
use crate::error::Error;
use crate::key::ObjectKey;
use crate::log::{Log, LogError, Record, RecordKind};
use crate::mutation::Mutation;
use crate::options::Options;
use crate::state::{Change, HistoryLimits, Listing, Query, State};
use crate::watch::{Start, Watch};
use crate::writer::{Command, Writer};

/// An open store; clones share it. The writer ends with the last clone, or by [`Handle::close`].
///
/// A write whose future is dropped before it answers may or may not happen.
#[derive(Debug, Clone)]
pub struct Handle {
    state: Arc<RwLock<State>>,
    commands: mpsc::Sender<Command>,
    revision: watch::Receiver<u64>,
}

impl Handle {
    pub(crate) fn open(options: Options, mut log: Box<dyn Log>) -> Result<Self, Error> {
        let limits = HistoryLimits { events: options.history_events, bytes: options.history_bytes };
        let state = load(log.as_mut(), limits)?;
        let (revision_sender, revision) = watch::channel(state.revision());
        let (commands, queue) = mpsc::channel(options.queued_writes.max(1));
        let state = Arc::new(RwLock::new(state));
        let writer = Writer::new(log, state.clone(), revision_sender, options);
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|error| Error::Start(Arc::new(error)))?;
        Ok(Self { state, commands, revision })
    }

    /// Creates an object; [`Error::AlreadyExists`] if the key is taken. Returns it with its revision set.
    pub async fn create(&self, key: ObjectKey, object: Value) -> Result<Arc<Entry>, Error> {
        self.mutate(Mutation::Create { key, object }).await
    }

    /// Replaces an object that is at the expected revision; [`Error::Conflict`] if it is at another.
    pub async fn update(
        &self,
        key: ObjectKey,
        expected_revision: u64,
        object: Value,
    ) -> Result<Arc<Entry>, Error> {
        self.mutate(Mutation::Update { key, expected_revision, object }).await
    }

    /// Deletes an object that is at the expected revision. Returns the last state, `last` or else the present
    /// one, with the deletion's revision; watchers see the same.
    pub async fn delete(
        &self,
        key: ObjectKey,
        expected_revision: u64,
        last: Option<Value>,
    ) -> Result<Arc<Entry>, Error> {
        self.mutate(Mutation::Delete { key, expected_revision, last }).await
    }

    /// Does all of the mutations or, with the error of the first that fails, none. They get consecutive
    /// revisions; each sees what those before it did. Returns one entry each.
    pub async fn transact(&self, mutations: Vec<Mutation>) -> Result<Vec<Arc<Entry>>, Error> {
        self.ask(|reply| Command::Transact { mutations, reply }).await
    }

    async fn mutate(&self, mutation: Mutation) -> Result<Arc<Entry>, Error> {
        self.transact(vec![mutation]).await?.pop().ok_or(Error::Closed)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// The object as it is now.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Entry>> {
        self.state.read().get(key).cloned()
    }

    /// The objects as they are now.
    pub fn list(&self, query: &Query<'_>) -> Listing {
        self.state.read().list(query)
    }

    /// The objects as they were at the revision; [`Error::Expired`] if that is before the history that is kept,
    /// [`Error::Future`] if it has not been reached.
    pub fn list_at(&self, query: &Query<'_>, revision: u64) -> Result<Listing, Error> {
        self.state.read().list_at(query, revision)
    }

    /// The events of a resource, of one namespace or of all.
    pub fn watch(&self, resource: &str, namespace: Option<&str>, start: Start) -> Result<Watch, Error> {
        let mut state = self.state.write();
        Watch::new(&self.state, &mut state, resource.into(), namespace.map(Into::into), start)
    }

    /// The objects as they are now and a watch of everything after that.
    pub fn list_and_watch(&self, resource: &str, namespace: Option<&str>) -> Result<(Listing, Watch), Error> {
        let mut state = self.state.write();
        let listing = state.list(&Query::new(resource).namespace(namespace));
        let start = Start::After(listing.revision);
        let watch = Watch::new(&self.state, &mut state, resource.into(), namespace.map(Into::into), start)?;
        Ok((listing, watch))
    }

    /// The revision of the newest write.
    pub fn current_revision(&self) -> u64 {
        self.state.read().revision()
    }

    /// The revision up to which history was dropped: nothing before it can be listed or watched.
    pub fn compacted_revision(&self) -> u64 {
        self.state.read().compacted()
    }

    /// Waits until the store has reached the revision; [`Error::Future`] if it has not by the deadline.
    pub async fn wait_for_revision(&self, revision: u64, deadline: Instant) -> Result<(), Error> {
        let mut reached = self.revision.clone();
        match tokio::time::timeout_at(deadline, reached.wait_for(|current| *current >= revision)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::Future { requested: revision, current: self.current_revision() }),
        }
    }

    /// Drops the history up to the revision; the state at the revision and all after it stay.
    pub async fn compact(&self, through: u64) -> Result<(), Error> {
        self.ask(|reply| Command::Compact { through, reply }).await
    }

    /// Finishes the writes that are queued, refuses new ones, ends the watches and closes the log.
    pub async fn close(&self) -> Result<(), Error> {
        self.ask(|reply| Command::Close { reply }).await
    }
}

/// Replays the log.
fn load(log: &mut dyn Log, limits: HistoryLimits) -> Result<State, Error> {
    let mut state = State::new(limits);
    let compacted = log.load(&mut |record| {
        check(&state, &record)?;
        let Record { revision, key, kind, create_revision, json, .. } = record;
        let entry = Arc::new(Entry::new(state.share(key), revision, create_revision, json));
        state.apply(Change { entry, deleted: kind == RecordKind::Delete });
        Ok(())
    })?;
    state.compact(compacted);
    Ok(state)
}

fn check(state: &State, record: &Record) -> Result<(), LogError> {
    let damaged =
        |reason: String| LogError::Damaged { revision: record.revision, key: record.key.clone(), reason };
    if record.revision <= state.revision() {
        return Err(damaged(format!("it comes after revision {}", state.revision())));
    }
    let previous = state.get(&record.key).map(|entry| entry.revision());
    if previous.is_some() && previous != record.previous_revision {
        return Err(damaged(format!(
            "it supersedes {:?}, the object is at {previous:?}",
            record.previous_revision
        )));
    }
    serde_json::from_slice::<IgnoredAny>(&record.json).map_err(|error| damaged(error.to_string()))?;
    Ok(())
}
