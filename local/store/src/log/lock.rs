use std::fs::TryLockError;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;

use super::LogError;

/// Keeps other processes out for as long as it lives; the kernel releases it with the process.
#[derive(Debug)]
pub(super) struct LockFile(#[expect(dead_code, reason = "held for its lock")] fs::File);

impl LockFile {
    /// Locks `<path>.lock` and writes our process id into it.
    pub(super) fn acquire(path: &Path) -> Result<Self, LogError> {
        let lock = lock_path(path);
        let failed = |source: io::Error| LogError::Io { path: lock.clone(), source };
        let mut file = create_private(&lock).map_err(failed)?;
        match file.file().try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Without the id the message is still true.
                let _ = file.read_to_string(&mut holder);
                return Err(LogError::Locked { path: path.to_owned(), pid: holder.trim().parse().ok() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self(file))
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    lock.into()
}

/// Opens a file for reading and writing; creates it for its owner alone.
pub(super) fn create_private(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}
