//! Where NCCL may lie.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// As NVIDIA's packages and the wheel name the library.
const FILE_NAME: &str = "libnccl.so.2";

/// Where a wheel puts it, below a folder of Python packages.
const IN_PACKAGES: &str = "nvidia/nccl/lib";

/// The places to look for NCCL, in this order: the one file that is named; folders; the loader's own places; and
/// folders again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// This file and no other.
    pub file: Option<PathBuf>,
    /// Folders that come before what the loader finds.
    pub folders: Vec<PathBuf>,
    /// What the loader is asked for: it knows `LD_LIBRARY_PATH` and the cache of `ldconfig`.
    pub names: Vec<String>,
    /// Folders that come after it.
    pub fallbacks: Vec<PathBuf>,
}

/// A place to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Candidate {
    /// A file that is there.
    File(PathBuf),
    /// A name for the loader.
    Name(String),
}

impl Search {
    /// `MUSTER_NCCL` (a file, or a folder), `NCCL_HOME`, the loader's names, and the folders of Python packages of
    /// this environment (`VIRTUAL_ENV`, `CONDA_PREFIX`, `PYTHONPATH`), of the interpreters in `PATH` and of the user.
    pub fn from_environment() -> Self {
        Self::of(|name| std::env::var_os(name))
    }

    /// As [`Self::from_environment`], with these variables.
    pub fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let named = path("MUSTER_NCCL");
        if let Some(file) = named.as_ref().filter(|named| !named.is_dir()) {
            return Self { file: Some(file.clone()), ..Self::default() };
        }
        let mut folders: Vec<PathBuf> = named.into_iter().collect();
        folders.extend(path("NCCL_HOME").iter().flat_map(|home| [home.join("lib"), home.join("lib64")]));
        let mut packages: Vec<PathBuf> = Vec::new();
        packages.extend(variable("PYTHONPATH").iter().flat_map(std::env::split_paths));
        let mut prefixes: Vec<PathBuf> =
            ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(path).collect();
        let commands = variable("PATH").unwrap_or_default();
        prefixes.extend(std::env::split_paths(&commands).filter_map(|bin| bin.parent().map(Path::to_owned)));
        prefixes.extend(path("HOME").map(|home| home.join(".local")));
        let libraries = prefixes.iter().flat_map(|prefix| [prefix.join("lib"), prefix.join("lib64")]);
        packages.extend(libraries.flat_map(|library| python_packages(&library)));
        let mut seen = BTreeSet::new();
        packages.retain(|folder| seen.insert(folder.clone()));
        Self {
            file: None,
            folders,
            names: vec![FILE_NAME.to_owned(), "libnccl.so".to_owned()],
            fallbacks: packages.into_iter().map(|folder| folder.join(IN_PACKAGES)).collect(),
        }
    }

    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        if let Some(file) = &self.file {
            return vec![Candidate::File(file.clone())];
        }
        let present = |folders: &[PathBuf]| -> Vec<Candidate> {
            let files = folders.iter().map(|folder| folder.join(FILE_NAME));
            files.filter(|file| file.exists()).map(Candidate::File).collect()
        };
        let names = self.names.iter().cloned().map(Candidate::Name);
        present(&self.folders).into_iter().chain(names).chain(present(&self.fallbacks)).collect()
    }

    /// For the message that nothing was found.
    pub(crate) fn places(&self) -> Vec<String> {
        let folders = self.folders.iter().map(|folder| folder.join(FILE_NAME).display().to_string());
        let names = self.names.iter().map(|name| format!("{name} in the loader's path"));
        let packages = self.fallbacks.iter().map(|folder| folder.join(FILE_NAME).display().to_string());
        folders.chain(names).chain(packages).collect()
    }
}

/// The folders of packages of every Python below `lib`.
fn python_packages(lib: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(lib) else { return Vec::new() };
    let mut versions: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .map(|entry| entry.path())
        .collect();
    versions.sort();
    let packages = |version: PathBuf| [version.join("site-packages"), version.join("dist-packages")];
    versions.into_iter().rev().flat_map(packages).filter(|folder| folder.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(file: &Path) {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "").unwrap();
    }

    #[test]
    fn a_wheel_is_found_in_the_environment_that_is_active_and_beside_an_interpreter() {
        let root = tempfile::tempdir().unwrap();
        let wheel = |prefix: &str, python: &str| {
            root.path()
                .join(prefix)
                .join("lib")
                .join(python)
                .join("site-packages")
                .join(IN_PACKAGES)
                .join(FILE_NAME)
        };
        let (active, beside, user) =
            (wheel("venv", "python3.13"), wheel("usr", "python3.11"), wheel("user/.local", "python3.12"));
        for file in [&active, &beside, &user] {
            touch(file);
        }
        let search = Search::of(|name| match name {
            "VIRTUAL_ENV" => Some(root.path().join("venv").into()),
            "PATH" => Some(root.path().join("usr/bin").into()),
            "HOME" => Some(root.path().join("user").into()),
            _ => None,
        });
        let names = [FILE_NAME, "libnccl.so"].map(|name| Candidate::Name(name.to_owned()));
        let mut expected = names.to_vec();
        expected.extend([active, beside, user].map(Candidate::File));
        assert_eq!(search.candidates(), expected);
    }

    #[test]
    fn what_is_named_comes_first_and_a_named_file_is_the_only_one() {
        let root = tempfile::tempdir().unwrap();
        let (named, home) = (root.path().join("named"), root.path().join("home"));
        touch(&named.join(FILE_NAME));
        touch(&home.join("lib").join(FILE_NAME));
        let variables = |file: bool| {
            let named = if file { named.join(FILE_NAME) } else { named.clone() };
            let home = home.clone();
            move |name: &str| match name {
                "MUSTER_NCCL" => Some(OsString::from(&named)),
                "NCCL_HOME" => Some(OsString::from(&home)),
                _ => None,
            }
        };
        let found = Search::of(variables(false)).candidates();
        let files = [named.join(FILE_NAME), home.join("lib").join(FILE_NAME)].map(Candidate::File);
        assert_eq!(found[..2], files);
        assert_eq!(Search::of(variables(true)).candidates(), files[..1]);
        let missing = Search::of(|name| (name == "MUSTER_NCCL").then(|| "/nowhere/libnccl.so.2".into()));
        assert_eq!(missing.candidates(), [Candidate::File("/nowhere/libnccl.so.2".into())]);
    }
}
