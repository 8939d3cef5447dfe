mod lock;
mod memory;
mod sqlite;

use std::error::Error as StdError;
use std::path::PathBuf;

use bytes::Bytes;

use crate::key::ObjectKey;

pub use memory::MemoryLog;
pub use sqlite::{Durability, SqliteLog};

/// What a record says about its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// The object was created or updated; the record carries its new state.
    Put,
    /// The object was deleted; the record carries its last state.
    Delete,
}

/// One mutation of one object.
#[derive(Debug, Clone)]
pub struct Record {
    /// The mutation's revision, unique in the log.
    pub revision: u64,
    /// The object.
    pub key: ObjectKey,
    /// Whether it was written or deleted.
    pub kind: RecordKind,
    /// The revision at which the object was created.
    pub create_revision: u64,
    /// The revision that this one supersedes; none for a creation.
    pub previous_revision: Option<u64>,
    /// The object as JSON with `metadata.resourceVersion` set to `revision`.
    pub json: Bytes,
}

/// Where records are kept. The store's writer thread is the only caller.
pub trait Log: Send {
    /// Calls `visit` with every record in ascending order of revision, then returns the revision up to which
    /// the log has been compacted (0 = never).
    fn load(&mut self, visit: &mut dyn FnMut(Record) -> Result<(), LogError>) -> Result<u64, LogError>;

    /// Appends the records, all or none. They survive the process once this returns.
    fn append(&mut self, records: &[Record]) -> Result<(), LogError>;

    /// Removes every record above the revision. Called before the first append after a failed one, in case the
    /// failed one left anything behind.
    fn truncate(&mut self, above: u64) -> Result<(), LogError>;

    /// Removes every record that was superseded at or before the revision, and every deletion up to it, and
    /// remembers the revision as the one compacted to.
    fn compact(&mut self, through: u64) -> Result<(), LogError>;

    /// Writes out and releases everything.
    fn close(&mut self) -> Result<(), LogError>;
}

/// Why a log failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file could not be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// SQLite failed.
    #[error("{}: {source}", path.display())]
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file is something else than a store.
    #[error("{} is not a muster store; move it away or choose another file", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
    },
    /// Another process has the store open.
    #[error("{} is in use by {}; stop it first", path.display(), holder(*pid))]
    Locked {
        /// The database file.
        path: PathBuf,
        /// The process that holds it, where known.
        pid: Option<u32>,
    },
    /// A newer release wrote the file.
    #[error("{} has schema version {found}, this release knows up to {supported}; use a newer release", path.display())]
    TooNew {
        /// The database file.
        path: PathBuf,
        /// The file's version.
        found: i64,
        /// The newest version that can be read.
        supported: i64,
    },
    /// A record contradicts the ones before it or is no JSON.
    #[error("revision {revision} of {key} is damaged: {reason}; restore the file from a copy")]
    Damaged {
        /// The record's revision.
        revision: u64,
        /// The record's object.
        key: ObjectKey,
        /// What is wrong with it.
        reason: String,
    },
    /// Another implementation of [`Log`] failed.
    #[error(transparent)]
    Other(Box<dyn StdError + Send + Sync>),
}

impl LogError {
    /// Whether the disk has no room for more.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
            }
            Self::Sqlite { source, .. } => source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            _ => false,
        }
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
