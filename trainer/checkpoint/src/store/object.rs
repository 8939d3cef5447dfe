//! A prefix of an object store: S3, Google Cloud Storage, Azure, or whatever else `object_store` speaks to.

use std::io;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};
use tokio::runtime::{Builder, Runtime};

use super::{Entry, Error, Store, Upload};

/// Bytes of a part of an upload. S3 wants at least 5 MiB of each but the last.
const PART: u64 = 8 << 20;
/// Parts that S3 takes at most of one object.
const MOST_PARTS: u64 = 10_000;
/// Parts on their way at a time.
const PARTS_AT_A_TIME: usize = 4;

/// Checkpoints below a prefix of an object store.
///
/// Objects appear whole or not at all by the store's own rules; parts of uploads that a crash cut short are
/// invisible, and a lifecycle rule of the bucket removes them. Calls block on a runtime of the store's own, so they must
/// not be made from inside another runtime. Retries and deadlines are those of `object_store`.
#[derive(Debug)]
pub struct ObjectFolder {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    runtime: Runtime,
}

impl ObjectFolder {
    /// What lies below `prefix`, which may be empty.
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: &str) -> Result<Self, Error> {
        let store = objects.to_string();
        let failed = |source| Error::Failed { action: "open", name: prefix.to_owned(), store, source };
        let runtime = Builder::new_current_thread().enable_all().build();
        match (Path::parse(prefix), runtime) {
            (Ok(prefix), Ok(runtime)) => Ok(Self { objects, prefix, runtime }),
            (Err(error), _) => Err(failed(io::Error::other(error))),
            (_, Err(error)) => Err(failed(error)),
        }
    }

    fn path(&self, name: &str) -> Result<Path, Error> {
        let separator = if self.prefix.as_ref().is_empty() || name.is_empty() { "" } else { "/" };
        Path::parse(format!("{}{separator}{name}", self.prefix))
            .map_err(|error| self.error("name", name, error.into()))
    }

    fn error(&self, action: &'static str, name: &str, error: object_store::Error) -> Error {
        let name = name.to_owned();
        let store = format!("{}, {}", self.objects, self.prefix);
        match error {
            object_store::Error::NotFound { .. } => Error::NotFound { name, store },
            error => Error::Failed { action, name, store, source: io::Error::other(error) },
        }
    }

    /// The name below the prefix.
    fn name<'a>(&self, path: &'a Path) -> Option<&'a str> {
        let below = path.as_ref().strip_prefix(self.prefix.as_ref())?;
        if self.prefix.as_ref().is_empty() { Some(below) } else { below.strip_prefix('/') }
    }
}

impl Store for ObjectFolder {
    fn list(&self, folder: &str) -> Result<Vec<Entry>, Error> {
        let path = self.path(folder)?;
        let mut stream = self.objects.list(Some(&path));
        let mut found = Vec::new();
        let next = |stream: &mut _| self.runtime.block_on(futures::StreamExt::next(stream));
        while let Some(object) = next(&mut stream) {
            let object = object.map_err(|error| self.error("list", folder, error))?;
            if let Some(name) = self.name(&object.location) {
                found.push(Entry { name: name.to_owned(), bytes: object.size });
            }
        }
        Ok(found)
    }

    fn size(&self, name: &str) -> Result<u64, Error> {
        let about = self.runtime.block_on(self.objects.head(&self.path(name)?));
        Ok(about.map_err(|error| self.error("look at", name, error))?.size)
    }

    fn read(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<(), Error> {
        if into.is_empty() {
            return self.size(name).map(drop);
        }
        let end = offset + into.len() as u64;
        match self.runtime.block_on(self.objects.get_range(&self.path(name)?, offset..end)) {
            Ok(bytes) if bytes.len() == into.len() => {
                into.copy_from_slice(&bytes);
                Ok(())
            }
            // Stores answer a range beyond the end in ways of their own.
            answer => match (self.size(name)?, answer) {
                (bytes, Err(error)) if bytes >= end => Err(self.error("read", name, error)),
                _ => {
                    let store = format!("{}, {}", self.objects, self.prefix);
                    Err(Error::TooShort { name: name.to_owned(), store, end })
                }
            },
        }
    }

    fn create(&self, name: &str, bytes: u64) -> Result<Box<dyn Upload + '_>, Error> {
        let path = self.path(name)?;
        let content = if bytes <= PART {
            Content::Small(Vec::with_capacity(bytes as usize))
        } else {
            let begin = async {
                let part = PART.max(bytes.div_ceil(MOST_PARTS)) as usize;
                let upload = self.objects.put_multipart(&path).await?;
                Ok(WriteMultipart::new_with_chunk_size(upload, part))
            };
            let parts = self.runtime.block_on(begin).map_err(|error| self.error("create", name, error))?;
            Content::Parts(Some(parts))
        };
        Ok(Box::new(Sending { folder: self, name: name.to_owned(), path, content }))
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        match self.runtime.block_on(self.objects.delete(&self.path(name)?)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error("remove", name, error)),
        }
    }
}

struct Sending<'a> {
    folder: &'a ObjectFolder,
    name: String,
    path: Path,
    content: Content,
}

enum Content {
    /// One request, when it is finished.
    Small(Vec<u8>),
    /// `None` once finished.
    Parts(Option<WriteMultipart>),
}

impl Upload for Sending<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let sent = match &mut self.content {
            Content::Small(content) => {
                content.extend_from_slice(bytes);
                Ok(())
            }
            Content::Parts(None) => Ok(()),
            Content::Parts(Some(parts)) => self.folder.runtime.block_on(async {
                parts.wait_for_capacity(PARTS_AT_A_TIME).await?;
                parts.write(bytes);
                Ok(())
            }),
        };
        sent.map_err(|error| self.folder.error("write", &self.name, error))
    }

    fn finish(mut self: Box<Self>) -> Result<(), Error> {
        let folder = self.folder;
        let sent = match &mut self.content {
            Content::Small(content) => {
                let payload = PutPayload::from(std::mem::take(content));
                folder.runtime.block_on(folder.objects.put(&self.path, payload)).map(drop)
            }
            Content::Parts(parts) => match parts.take() {
                Some(parts) => folder.runtime.block_on(parts.finish()).map(drop),
                None => Ok(()),
            },
        };
        sent.map_err(|error| folder.error("write", &self.name, error))
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if let Content::Parts(parts) = &mut self.content
            && let Some(parts) = parts.take()
            && let Err(error) = self.folder.runtime.block_on(parts.abort())
        {
            tracing::warn!(name = self.name, %error, "an unfinished upload stays until the bucket's lifecycle rule");
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::store::{read_whole, write_whole};

    #[test]
    fn objects_appear_whole_and_unfinished_ones_never() {
        for prefix in ["", "runs/one"] {
            let objects = Arc::new(InMemory::new());
            let store = ObjectFolder::new(Arc::clone(&objects) as _, prefix).unwrap();
            let neighbour = ObjectFolder::new(objects, "runs/oneself").unwrap();
            write_whole(&neighbour, "a/z", b"").unwrap();
            write_whole(&store, "a/b", b"some").unwrap();
            let long: Vec<u8> = (0..PART as u32 / 2).flat_map(u32::to_le_bytes).collect();
            let mut upload = store.create("a/c", long.len() as u64).unwrap();
            upload.write(&long[..10_000_000]).unwrap();
            assert_eq!(store.list("a").unwrap(), [Entry { name: "a/b".into(), bytes: 4 }]);
            upload.write(&long[10_000_000..]).unwrap();
            upload.finish().unwrap();
            drop(store.create("a/d", PART + 1).unwrap());
            assert_eq!(store.list("a").unwrap().len(), 2);
            assert!(read_whole(&store, "a/c", 1 << 30).unwrap() == Ok(long.clone()));
            let end = long.len() as u64;
            assert!(matches!(store.read("a/c", end - 1, &mut [0; 2]), Err(Error::TooShort { .. })));
            assert!(matches!(store.read("a/c", end, &mut [0; 2]), Err(Error::TooShort { .. })));
            assert!(matches!(store.read("a/d", 0, &mut [0; 1]), Err(Error::NotFound { .. })));
            store.remove("a/b").unwrap();
            store.remove("a/b").unwrap();
            assert!(matches!(store.size("a/b"), Err(Error::NotFound { .. })));
            assert!(store.path("../b").is_err());
        }
    }
}
