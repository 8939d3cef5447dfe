//! Finds the program of the workers before any starts, so that a wrong name is one error and not one a worker.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::Access;
use rustix::io::Errno;

/// The command cannot be run.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// There is no such file.
    #[error("{command}: there is no such file")]
    NoFile {
        /// The command.
        command: String,
    },
    /// No folder of `PATH` has it.
    #[error("{command}: there is no such command in PATH, which is {path:?}")]
    NotFound {
        /// The command.
        command: String,
        /// The folders that were searched.
        path: String,
    },
    /// It is there, but not a program.
    #[error("{} cannot be executed: {reason}", .file.display())]
    NotExecutable {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: &'static str,
    },
}

impl Error {
    /// What shells exit with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NoFile { .. } | Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
        }
    }
}

/// The file that `command` means, searched for in the folders of `path` as a shell does.
pub(crate) fn find(command: &OsStr, path: &OsStr) -> Result<PathBuf, Error> {
    let name = || command.to_string_lossy().into_owned();
    if command.as_encoded_bytes().contains(&b'/') {
        let file = PathBuf::from(command);
        return match obstacle(&file) {
            None => Ok(file),
            Some(Obstacle::Missing) => Err(Error::NoFile { command: name() }),
            Some(Obstacle::Reason(reason)) => Err(Error::NotExecutable { file, reason }),
        };
    }
    let mut refused = None;
    for folder in std::env::split_paths(path).filter(|_| !command.is_empty()) {
        let file = folder.join(command);
        match obstacle(&file) {
            None => return Ok(file),
            Some(Obstacle::Missing) => {}
            Some(Obstacle::Reason(reason)) => {
                refused.get_or_insert(Error::NotExecutable { file, reason });
            }
        }
    }
    let path = path.to_string_lossy().into_owned();
    Err(refused.unwrap_or_else(|| Error::NotFound { command: name(), path }))
}

enum Obstacle {
    Missing,
    Reason(&'static str),
}

fn obstacle(file: &Path) -> Option<Obstacle> {
    match fs::metadata(file) {
        Err(_) => Some(Obstacle::Missing),
        Ok(found) if found.is_dir() => Some(Obstacle::Reason("it is a folder")),
        Ok(_) => match rustix::fs::access(file, Access::EXEC_OK) {
            Ok(()) => None,
            Err(Errno::ACCESS) => Some(Obstacle::Reason("it lacks the permission (chmod +x)")),
            Err(_) => Some(Obstacle::Reason("its file system or its user forbids it")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn programs_are_found_as_shells_find_them() {
        let root = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| root.path().join(name));
        for folder in [&first, &second] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(first.join("train"), "").unwrap();
        fs::set_permissions(first.join("train"), PermissionsExt::from_mode(0o644)).unwrap();
        let path = std::env::join_paths([&first, &second]).unwrap();
        let found = |command: &str| find(OsStr::new(command), &path);

        let refused = found("train").unwrap_err();
        assert_eq!((refused.exit_code(), refused.to_string().contains("chmod +x")), (126, true), "{refused}");
        fs::write(second.join("train"), "").unwrap();
        fs::set_permissions(second.join("train"), PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(found("train"), Ok(second.join("train")), "the next folder may have one that works");

        assert_eq!(found("nosuch").unwrap_err().exit_code(), 127);
        assert_eq!(found("").unwrap_err().exit_code(), 127);
        let missing = found("./nosuch").unwrap_err();
        assert_eq!(
            (missing.exit_code(), missing.to_string()),
            (127, "./nosuch: there is no such file".into())
        );
        let folder = found(first.to_str().unwrap()).unwrap_err();
        assert_eq!(folder.exit_code(), 126);
        assert!(folder.to_string().ends_with("cannot be executed: it is a folder"));
    }
}
