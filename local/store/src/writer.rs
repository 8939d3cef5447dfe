//! The one thread that changes anything.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};

use crate::entry::Entry;
use crate::error::Error;
use crate::log::{Log, LogError, Record};
use crate::mutation::{Batch, Mutation};
use crate::options::Options;
use crate::parsed::ParsedObjects;
use crate::state::State;

/// Revisions that compaction moves over at once: enough to be worth a transaction, few enough that no write
/// waits long for it.
const COMPACTION_STEP: u64 = 500;
/// Ages of revisions are known to this precision.
const AGE_PRECISION: Duration = Duration::from_secs(1);

/// Where the outcome of a transaction goes.
type TransactReply = oneshot::Sender<Result<Vec<Arc<Entry>>, Error>>;

/// What callers ask the writer for.
#[derive(Debug)]
pub(crate) enum Command {
    Transact { mutations: Vec<Mutation>, reply: TransactReply },
    Compact { through: u64, reply: oneshot::Sender<Result<(), Error>> },
    Close { reply: oneshot::Sender<Result<(), Error>> },
}

/// A transaction that passed its checks and waits for the log.
struct Accepted {
    entries: Vec<Arc<Entry>>,
    reply: TransactReply,
}

pub(crate) struct Writer {
    log: Box<dyn Log>,
    state: Arc<RwLock<State>>,
    revision: watch::Sender<u64>,
    options: Options,
    parsed: ParsedObjects,
    /// When the store reached which revision, oldest first; only those inside the window that is kept.
    ages: VecDeque<(Instant, u64)>,
    /// Everything up to here is outside the window that is kept.
    outdated: u64,
    /// A failed append may have left something in the log.
    suspect: bool,
}

impl Writer {
    pub(crate) fn new(
        log: Box<dyn Log>,
        state: Arc<RwLock<State>>,
        revision: watch::Sender<u64>,
        options: Options,
    ) -> Self {
        let ages = VecDeque::from([(options.clock.now(), state.read().revision())]);
        let parsed = ParsedObjects::new(options.parsed_bytes);
        Self { log, state, revision, options, parsed, ages, outdated: 0, suspect: false }
    }

    /// Works until it is told to close or every handle is gone.
    pub(crate) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut closing = Vec::new();
        while let Some(first) = commands.blocking_recv() {
            let mut transactions = Vec::new();
            let mut next = Some(first);
            while let Some(command) = next {
                match command {
                    Command::Transact { mutations, reply } => transactions.push((mutations, reply)),
                    Command::Compact { through, reply } => {
                        self.commit(std::mem::take(&mut transactions));
                        let _ = reply.send(self.compact(through));
                    }
                    Command::Close { reply } => {
                        commands.close();
                        closing.push(reply);
                    }
                }
                next = if transactions.len() < self.options.queued_writes {
                    commands.try_recv().ok()
                } else {
                    None
                };
            }
            self.commit(transactions);
            self.compact_old();
        }
        let closed = self.log.close();
        if let Err(error) = &closed {
            tracing::error!(%error, "cannot close the store's log");
        }
        // Watches end and the log is released before anybody is told.
        drop(self);
        let closed = closed.map_err(Error::from);
        for reply in closing {
            let _ = reply.send(closed.clone());
        }
    }

    /// Checks the transactions one after the other, writes those that pass as one, publishes, answers.
    fn commit(&mut self, transactions: Vec<(Vec<Mutation>, TransactReply)>) {
        if transactions.is_empty() {
            return;
        }
        let mut batch = Batch::new(self.options.object_bytes);
        let mut accepted = Vec::with_capacity(transactions.len());
        let mut refused = Vec::new();
        for (mutations, reply) in transactions {
            match batch.accept(&self.state.read(), mutations) {
                Ok(entries) => accepted.push(Accepted { entries, reply }),
                Err(error) => refused.push((error, reply)),
            }
        }
        if let Err(error) = self.append(&batch.records) {
            // Refusals too may rest on writes of this batch that never came to be.
            tracing::error!(%error, writes = batch.records.len(), "the store's log failed, writes are refused");
            let error = Error::from(error);
            let waiting = accepted.into_iter().map(|accepted| accepted.reply);
            for reply in waiting.chain(refused.into_iter().map(|(_, reply)| reply)) {
                let _ = reply.send(Err(error.clone()));
            }
            return;
        }
        self.publish(batch);
        for Accepted { entries, reply } in accepted {
            let _ = reply.send(Ok(entries));
        }
        for (error, reply) in refused {
            let _ = reply.send(Err(error));
        }
    }

    fn append(&mut self, records: &[Record]) -> Result<(), LogError> {
        if records.is_empty() {
            return Ok(());
        }
        if self.suspect {
            self.log.truncate(self.state.read().revision())?;
        }
        self.suspect = true;
        self.log.append(records)?;
        self.suspect = false;
        Ok(())
    }

    fn publish(&mut self, batch: Batch) {
        if batch.changes.is_empty() {
            return;
        }
        let mut resources: Vec<Arc<str>> = Vec::new();
        let mut state = self.state.write();
        let mut written = Vec::with_capacity(batch.changes.len());
        for change in batch.changes {
            let resource = &change.entry.key().resource;
            if !resources.contains(resource) {
                resources.push(resource.clone());
            }
            written.push((change.entry.clone(), change.deleted));
            state.apply(change);
        }
        let revision = state.revision();
        drop(state);
        let state = self.state.read();
        for resource in resources {
            state.notify(&resource);
        }
        drop(state);
        self.revision.send_replace(revision);
        self.note_age(revision);
        for ((entry, deleted), object) in written.into_iter().zip(batch.parsed) {
            if deleted {
                self.parsed.remove(entry.key());
            } else {
                self.parsed.insert(entry.key(), entry.size(), object);
            }
        }
    }

    fn compact(&mut self, through: u64) -> Result<(), Error> {
        let (current, compacted) = {
            let state = self.state.read();
            (state.revision(), state.compacted())
        };
        if through > current {
            return Err(Error::Future { requested: through, current });
        }
        if through > compacted {
            self.log.compact(through)?;
            self.state.write().compact(through);
        }
        Ok(())
    }

    fn note_age(&mut self, revision: u64) {
        let now = self.options.clock.now();
        match self.ages.back_mut() {
            Some((since, newest)) if now.saturating_duration_since(*since) < AGE_PRECISION => {
                *newest = revision;
            }
            _ => self.ages.push_back((now, revision)),
        }
    }

    /// Takes one step towards dropping what is outside the window that is kept.
    fn compact_old(&mut self) {
        let (current, compacted) = {
            let state = self.state.read();
            (state.revision(), state.compacted())
        };
        let now = self.options.clock.now();
        self.outdated = self.outdated.max(current.saturating_sub(self.options.retained_revisions));
        while let Some((reached, revision)) = self.ages.front() {
            if now.saturating_duration_since(*reached) > self.options.retained_age {
                self.outdated = self.outdated.max(*revision);
            } else if *revision > self.outdated {
                break;
            }
            self.ages.pop_front();
        }
        let step = compacted + COMPACTION_STEP;
        if self.outdated >= step
            && let Err(error) = self.compact(step)
        {
            tracing::warn!(%error, "cannot drop old revisions from the store's log");
        }
    }
}

impl Drop for Writer {
    /// However the writer ends, no watch waits for it.
    fn drop(&mut self) {
        self.state.write().close();
    }
}
