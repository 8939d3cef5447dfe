//! The operations on a file system that a folder of checkpoints is made of, so that tests can cut them short.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use fs_err as fs;

/// A file system.
pub(crate) trait Files: fmt::Debug + Send + Sync {
    /// A file that is open for writing.
    type Open: OpenFile;

    fn create_folders(&self, path: &Path) -> io::Result<()>;
    /// An empty file, in the place of one of that name.
    fn create(&self, path: &Path) -> io::Result<Self::Open>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder that is empty.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes durable which files the folder has.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Names in the folder; of files with their length, of folders with none.
    fn list(&self, path: &Path) -> io::Result<Vec<(String, Option<u64>)>>;
    fn size(&self, path: &Path) -> io::Result<u64>;
    fn read(&self, path: &Path, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// A file that is being written.
pub(crate) trait OpenFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

/// The machine's file system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine;

impl Files for Machine {
    type Open = fs::File;

    fn create_folders(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn create(&self, path: &Path) -> io::Result<Self::Open> {
        fs::File::create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(String, Option<u64>)>> {
        let mut found = Vec::new();
        for item in fs::read_dir(path)? {
            let item = item?;
            // What has no name in text is not ours.
            let Ok(name) = item.file_name().into_string() else { continue };
            match item.metadata() {
                Ok(about) => found.push((name, about.is_file().then_some(about.len()))),
                // Removed by another rank since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn read(&self, path: &Path, offset: u64, into: &mut [u8]) -> io::Result<()> {
        fs::File::open(path)?.file().read_exact_at(into, offset)
    }
}

impl OpenFile for fs::File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}
