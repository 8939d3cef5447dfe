use std::sync::Arc;

use crate::key::ObjectKey;
use crate::log::LogError;

/// Why the store refused or failed a call.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The key is taken.
    #[error("{key} already exists at revision {revision}")]
    AlreadyExists {
        /// The key that is taken.
        key: ObjectKey,
        /// The revision of the object that has it.
        revision: u64,
    },
    /// No object has the key.
    #[error("{key} not found")]
    NotFound {
        /// The key that nobody has.
        key: ObjectKey,
    },
    /// The object has changed since the caller read it.
    #[error("{key} is at revision {actual}, not at the expected {expected}; read it again and retry")]
    Conflict {
        /// The object's key.
        key: ObjectKey,
        /// The revision that the caller expected.
        expected: u64,
        /// The revision that the object has.
        actual: u64,
    },
    /// The revision is older than the history that is kept, or the watch was too slow: list again.
    #[error("revision {requested} is too old, history starts after {oldest}; list again")]
    Expired {
        /// The revision asked for, or the last one that the watch has seen.
        requested: u64,
        /// The oldest revision that can be asked for.
        oldest: u64,
    },
    /// The revision has not been reached yet.
    #[error("revision {requested} is in the future, the store is at {current}")]
    Future {
        /// The revision asked for.
        requested: u64,
        /// The store's revision.
        current: u64,
    },
    /// The value is no JSON object, or its `metadata` is none.
    #[error("{key}: an object with an object under `metadata` is required")]
    NotAnObject {
        /// The key it was to be stored under.
        key: ObjectKey,
    },
    /// The object is larger than the store keeps; see [`Options::object_bytes`](crate::Options::object_bytes).
    #[error("{key} would take {size} bytes, the limit is {limit}; split the object")]
    TooLarge {
        /// The key it was to be stored under.
        key: ObjectKey,
        /// Its size as JSON.
        size: usize,
        /// The largest size.
        limit: usize,
    },
    /// The value cannot be written as JSON.
    #[error("{key}: cannot be encoded: {reason}")]
    Encode {
        /// The key it was to be stored under.
        key: ObjectKey,
        /// What the encoder said.
        reason: Arc<str>,
    },
    /// The log failed: nothing of the batch was written and the state is as before.
    #[error("the store's log failed, nothing was written: {0}")]
    Log(#[source] Arc<LogError>),
    /// The writer thread could not be started.
    #[error("cannot start the store's writer: {0}")]
    Start(#[source] Arc<std::io::Error>),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        Self::Log(Arc::new(error))
    }
}
