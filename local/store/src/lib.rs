//! Revisioned object store with a watch cache, on SQLite or in memory.
//!
//! One writer thread owns the [`Log`]: it takes every queued write, checks each against the state in memory,
//! appends the whole batch in one transaction, publishes it to readers and watchers and only then answers the
//! callers. Reads and watches never touch the log.
//!
//! Every mutation gets its own revision, so a watch that resumes after a revision can neither lose nor repeat an
//! event. The newest events of each resource stay in memory; they serve watches from a past revision and lists
//! at a past revision. Whoever asks for more history than is kept gets [`Error::Expired`].

mod entry;
mod error;
mod handle;
mod key;
mod log;
mod mutation;
mod options;
mod parsed;
mod state;
mod watch;
mod writer;

pub use entry::Entry;
pub use error::Error;
pub use handle::Handle;
pub use key::ObjectKey;
pub use log::{Durability, Log, LogError, MemoryLog, Record, RecordKind, SqliteLog};
pub use mutation::Mutation;
pub use options::{Clock, Options, Store};
pub use state::{Listing, Query};
pub use watch::{Event, EventKind, Start, Watch};
