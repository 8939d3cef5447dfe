//! A folder of a file system that all ranks see, or of one machine.

use std::io;
use std::path::{Path, PathBuf};

use super::files::{Machine, OpenFile};
use super::{Entry, Error, Files, Store, Upload};

/// What begins and ends the name of a file that is being written.
const TEMPORARY: (&str, &str) = (".", ".tmp");

/// Checkpoints in a folder.
///
/// A file is written under a temporary name, synced, renamed, and its folder synced; a removal is synced too. What a
/// crash leaves under a temporary name is listed, and so cleaned up.
#[derive(Debug)]
pub struct FolderStore {
    disk: Disk<Machine>,
}

impl FolderStore {
    /// Opens the folder, and creates it when it is not there.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        Ok(Self { disk: Disk::open(Machine, root.into())? })
    }
}

impl Store for FolderStore {
    fn list(&self, folder: &str) -> Result<Vec<Entry>, Error> {
        self.disk.list(folder)
    }

    fn size(&self, name: &str) -> Result<u64, Error> {
        self.disk.size(name)
    }

    fn read(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<(), Error> {
        self.disk.read(name, offset, into)
    }

    fn create(&self, name: &str, bytes: u64) -> Result<Box<dyn Upload + '_>, Error> {
        self.disk.create(name, bytes)
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        self.disk.remove(name)
    }
}

/// The same on any file system.
#[derive(Debug)]
pub(crate) struct Disk<F> {
    files: F,
    root: PathBuf,
}

impl<F: Files> Disk<F> {
    pub(crate) fn open(files: F, root: PathBuf) -> Result<Self, Error> {
        let disk = Self { files, root };
        let created = disk.files.create_folders(&disk.root).and_then(|()| {
            let parent = disk.root.parent().filter(|parent| !parent.as_os_str().is_empty());
            disk.files.sync_folder(parent.unwrap_or(Path::new(".")))
        });
        created.map_err(|source| disk.error("open", "", source))?;
        Ok(disk)
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.root.clone() } else { self.root.join(name) }
    }

    fn error(&self, action: &'static str, name: &str, source: io::Error) -> Error {
        let (name, store) = (name.to_owned(), self.root.display().to_string());
        match source.kind() {
            io::ErrorKind::NotFound => Error::NotFound { name, store },
            _ => Error::Failed { action, name, store, source },
        }
    }

    fn walk(&self, folder: &str, found: &mut Vec<Entry>) -> Result<(), Error> {
        let items = match self.files.list(&self.path(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            items => items.map_err(|source| self.error("list", folder, source))?,
        };
        for (item, bytes) in items {
            let name = if folder.is_empty() { item } else { format!("{folder}/{item}") };
            match bytes {
                Some(bytes) => found.push(Entry { name, bytes }),
                None => self.walk(&name, found)?,
            }
        }
        Ok(())
    }

    /// Syncs the folder of a file, and those above it up to the root: another rank may have created them just now.
    fn sync_above(&self, name: &str) -> io::Result<()> {
        let mut folder = Path::new(name).parent();
        while let Some(inner) = folder {
            self.files.sync_folder(&self.root.join(inner))?;
            folder = inner.parent();
        }
        Ok(())
    }
}

impl<F: Files> Store for Disk<F> {
    fn list(&self, folder: &str) -> Result<Vec<Entry>, Error> {
        let mut found = Vec::new();
        self.walk(folder, &mut found)?;
        Ok(found)
    }

    fn size(&self, name: &str) -> Result<u64, Error> {
        self.files.size(&self.path(name)).map_err(|source| self.error("look at", name, source))
    }

    fn read(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<(), Error> {
        match self.files.read(&self.path(name), offset, into) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::TooShort {
                name: name.to_owned(),
                store: self.root.display().to_string(),
                end: offset + into.len() as u64,
            }),
            read => read.map_err(|source| self.error("read", name, source)),
        }
    }

    fn create(&self, name: &str, _bytes: u64) -> Result<Box<dyn Upload + '_>, Error> {
        let path = self.path(name);
        let temporary = temporary(&path);
        let opened = self
            .files
            .create_folders(path.parent().unwrap_or(&self.root))
            .and_then(|()| self.files.create(&temporary));
        let file = opened.map_err(|source| self.error("create", name, source))?;
        Ok(Box::new(Writing { disk: self, name: name.to_owned(), path, temporary, file, renamed: false }))
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name);
        match self.files.remove(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed.map_err(|source| self.error("remove", name, source))?,
        }
        let folder = path.parent().unwrap_or(&self.root);
        self.files.sync_folder(folder).map_err(|source| self.error("remove", name, source))?;
        if folder != self.root {
            // Refused while there are other files in it; an empty folder that stays harms nobody.
            let _ = self.files.remove_folder(folder);
        }
        Ok(())
    }
}

fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{}{name}{}", TEMPORARY.0, TEMPORARY.1))
}

/// The name that a file left under a temporary name was to get.
pub(crate) fn intended(file: &str) -> Option<&str> {
    file.strip_prefix(TEMPORARY.0)?.strip_suffix(TEMPORARY.1)
}

struct Writing<'a, F: Files> {
    disk: &'a Disk<F>,
    name: String,
    path: PathBuf,
    temporary: PathBuf,
    file: F::Open,
    renamed: bool,
}

impl<F: Files> Upload for Writing<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write(bytes).map_err(|source| self.disk.error("write", &self.name, source))
    }

    fn finish(mut self: Box<Self>) -> Result<(), Error> {
        let failed = |source| self.disk.error("write", &self.name, source);
        self.file.sync().map_err(failed)?;
        self.disk.files.rename(&self.temporary, &self.path).map_err(failed)?;
        self.renamed = true;
        self.disk.sync_above(&self.name).map_err(|source| self.disk.error("write", &self.name, source))
    }
}

impl<F: Files> Drop for Writing<'_, F> {
    fn drop(&mut self) {
        if !self.renamed {
            // What cannot be removed now is found when the store is cleaned.
            let _ = self.disk.files.remove(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{read_whole, write_whole};

    #[test]
    fn files_appear_whole_and_unfinished_ones_never() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path().join("deep/er")).unwrap();
        write_whole(&store, "a/b", b"one").unwrap();
        write_whole(&store, "a/b", b"other").unwrap();
        let mut upload = store.create("a/c", 3).unwrap();
        upload.write(b"un").unwrap();
        let names = |store: &FolderStore| {
            let mut names: Vec<_> = store.list("").unwrap().into_iter().map(|entry| entry.name).collect();
            names.sort();
            names
        };
        assert_eq!(names(&store), ["a/.c.tmp", "a/b"]);
        drop(upload);
        assert_eq!(store.list("a").unwrap(), [Entry { name: "a/b".into(), bytes: 5 }]);
        assert_eq!(read_whole(&store, "a/b", 5).unwrap(), Ok(b"other".to_vec()));
        assert_eq!(read_whole(&store, "a/b", 4).unwrap(), Err(5));
        assert!(matches!(store.read("a/b", 3, &mut [0; 3]), Err(Error::TooShort { end: 6, .. })));
        assert!(matches!(store.read("a/c", 0, &mut [0; 1]), Err(Error::NotFound { .. })));
        store.remove("a/b").unwrap();
        store.remove("a/b").unwrap();
        assert_eq!(fs_err::read_dir(folder.path().join("deep/er")).unwrap().count(), 0);
        assert!(store.list("nowhere").unwrap().is_empty());
    }

    #[test]
    fn a_root_that_cannot_be_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs_err::write(&file, "").unwrap();
        let message = FolderStore::open(file.join("checkpoints")).unwrap_err().to_string();
        assert!(message.contains(&file.display().to_string()), "{message}");
    }
}
