//! Why a reconciliation failed; it is tried again with a growing pause.

use std::path::PathBuf;

/// The failure of one reconciliation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused or could not be reached.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// A write is not in the cache yet.
    #[error(
        "the watch of {kind} has not shown the last write within {seconds} s; is the API server overloaded?"
    )]
    CacheLag {
        /// The kind watched.
        kind: String,
        /// Seconds waited.
        seconds: u64,
    },
    /// An owner's kind is not served.
    #[error("the API server does not serve {kind} of {api_version}, which an owner reference names")]
    UnknownKind {
        /// The API version in the reference.
        api_version: String,
        /// The kind in the reference.
        kind: String,
    },
    /// No watch has shown the owner yet, so that none would tell of its end.
    #[error("owner {owner} exists, but no watch has shown it yet")]
    OwnerUnseen {
        /// Kind and name of the owner.
        owner: String,
    },
    /// Something that must be in the object is not.
    #[error("{what} has no {field}; the API server should have filled it in")]
    Missing {
        /// The object.
        what: String,
        /// The field.
        field: &'static str,
    },
    /// Others have every name that was tried.
    #[error("{what} finds no free name after {tried} tries; delete what has the names, or rename the owner")]
    NamesTaken {
        /// What wanted the name.
        what: String,
        /// How many names were tried.
        tried: i32,
    },
    /// A selector that cannot be read.
    #[error("spec.selector: {0}")]
    Selector(#[from] kube::core::ParseExpressionError),
    /// An object that cannot be written as JSON.
    #[error("cannot write the object as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The folder of a volume.
    #[error("cannot use the volume folder {folder}: {source}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether somebody else wrote first, the object is gone, or a watch is behind: nothing to tell anybody about.
    pub(crate) fn is_race(&self) -> bool {
        match self {
            Self::Api(kube::Error::Api(status)) => matches!(status.code, 404 | 409),
            Self::OwnerUnseen { .. } => true,
            _ => false,
        }
    }
}

/// Treats an answer "not found" as done.
pub(crate) fn gone_is_fine<T>(answer: kube::Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Treats an answer "already exists" as done.
pub(crate) fn existing_is_fine<T>(answer: kube::Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => Ok(None),
        Err(error) => Err(error.into()),
    }
}
