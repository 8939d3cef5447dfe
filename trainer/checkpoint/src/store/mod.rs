//! Where checkpoints lie: a folder or an object store, behind one small trait.
//!
//! Two implementations rather than one: `object_store` serves local folders too, but hides what unfinished writes
//! left behind and does not make deletions durable, and both matter to who cleans up after a crash.

mod files;
mod folder;
mod object;
#[cfg(test)]
pub(crate) mod simulated_disk;
mod url;

use std::fmt;
use std::io;

pub(crate) use self::files::Files;
#[cfg(test)]
pub(crate) use self::folder::Disk;
pub use self::folder::FolderStore;
pub(crate) use self::folder::intended;
pub use self::object::ObjectFolder;
pub use self::url::open;

/// Why a store could not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file.
    #[error("{name} is not in {store}")]
    NotFound {
        /// The file.
        name: String,
        /// The store.
        store: String,
    },
    /// The file ends before the bytes that were asked for.
    #[error("{name} in {store} ends before byte {end}")]
    TooShort {
        /// The file.
        name: String,
        /// The store.
        store: String,
        /// Where the read should have ended.
        end: u64,
    },
    /// The disk or the network failed.
    #[error("cannot {action} {name} in {store}: {source}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// The file.
        name: String,
        /// The store.
        store: String,
        /// What happened.
        source: io::Error,
    },
    /// The URL names no place that this build can reach.
    #[error("cannot keep checkpoints at {url}: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// Why not, and what would do.
        reason: String,
    },
}

/// A file in a store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name from the store's root, with `/` between folders.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// A place for files that appear whole or not at all.
///
/// Names are relative, with `/` between folders; the crate uses one level of them. All calls block.
pub trait Store: fmt::Debug + Send + Sync {
    /// Every file of `folder` and below it, or of the store with `""`, in no order; also what unfinished writes left.
    /// A folder that does not exist has none.
    fn list(&self, folder: &str) -> Result<Vec<Entry>, Error>;

    /// The length of a file.
    fn size(&self, name: &str) -> Result<u64, Error>;

    /// Fills `into` with the bytes from `offset` on.
    fn read(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<(), Error>;

    /// Begins a file of `bytes` bytes; it appears, in the place of one of that name, when the upload is finished.
    fn create(&self, name: &str, bytes: u64) -> Result<Box<dyn Upload + '_>, Error>;

    /// Removes a file, durably; one that is not there is no error.
    fn remove(&self, name: &str) -> Result<(), Error>;
}

/// A file that is being written. Dropped before it is finished, it never appears.
pub trait Upload {
    /// Appends bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error>;

    /// Makes the file durable, then visible. After an error it may or may not have appeared.
    fn finish(self: Box<Self>) -> Result<(), Error>;
}

/// Reads a file of at most `limit` bytes whole; `Ok(Err(bytes))` says how long a longer one is.
pub(crate) fn read_whole(store: &dyn Store, name: &str, limit: u64) -> Result<Result<Vec<u8>, u64>, Error> {
    let bytes = store.size(name)?;
    if bytes > limit {
        return Ok(Err(bytes));
    }
    let mut content = vec![0; bytes as usize];
    store.read(name, 0, &mut content)?;
    Ok(Ok(content))
}

/// Writes a small file.
pub(crate) fn write_whole(store: &dyn Store, name: &str, content: &[u8]) -> Result<(), Error> {
    let mut upload = store.create(name, content.len() as u64)?;
    upload.write(content)?;
    upload.finish()
}
