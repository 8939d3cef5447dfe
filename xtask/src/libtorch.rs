//! `cargo xtask libtorch`: what the feature `libtorch` of the trainer runtime is built and run with, without the parts for
//! GPUs, which are five times as large.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use fs_err as fs;

use crate::report;
use crate::workspace::{Workspace, succeeds};

/// How to get it.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The folder to make [default: target/libtorch, where builds of this tree look for it]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// The Python whose pip downloads it, from the index that pip is configured with
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: PathBuf,
}

/// The one that the crate tch is written for.
const VERSION: &str = "2.13.0";

/// What is downloaded. `libtorch_cpu.so` was built for CUDA too, and asks for two libraries of it on every machine.
const WHEELS: [&str; 3] = ["torch==2.13.0", "nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"];
/// The tags of these wheels; none depends on the Python that downloads it.
const PLATFORMS: [&str; 3] = ["manylinux_2_28_x86_64", "manylinux_2_25_x86_64", "manylinux2014_x86_64"];
const LIBRARIES: [&str; 5] =
    ["libc10.so", "libcudart.so.13", "libcupti.so.13", "libgomp.so.1", "libtorch_cpu.so"];

/// Says which libtorch it is, to the build of torch-sys and to us: the last file that is written.
const MARK: &str = "build-version";
/// Names an installation that is used instead.
const VARIABLE: &str = "LIBTORCH";

const UNPACK: &str = include_str!("libtorch/unpack.py");

/// Whether builds find libtorch, where the environment says or this chore puts it.
pub(crate) fn is_found(workspace: &Workspace) -> bool {
    named().unwrap_or_else(|| default_folder(workspace)).join("lib/libtorch.so").is_file()
}

fn named() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Below the root, wherever cargo builds: `.cargo/config.toml` names it.
fn default_folder(workspace: &Workspace) -> PathBuf {
    workspace.root.join("target/libtorch")
}

/// Gets it, unless it is there.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    // Cargo names the default folder to this program too.
    let other = named().filter(|folder| *folder != default_folder(workspace));
    if let (None, Some(folder)) = (&arguments.folder, other) {
        report::line(&format!("{VARIABLE} names {}, which builds use", folder.display()));
        return Ok(());
    }
    let folder = match &arguments.folder {
        Some(folder) => std::path::absolute(folder)?,
        None => default_folder(workspace),
    };
    match state(&folder)? {
        State::Current => report::line(&format!("libtorch {VERSION} is in {}", folder.display())),
        state => {
            make(&folder, state, &arguments.python)?;
            report::line(&format!("libtorch {VERSION} is in {} now", folder.display()));
        }
    }
    if folder != default_folder(workspace) {
        report::line(&format!("builds use it with {VARIABLE}={}", folder.display()));
    }
    Ok(())
}

/// What a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Absent,
    Outdated,
    Current,
}

/// A folder of something else is left alone.
fn state(folder: &Path) -> Result<State> {
    if !folder.exists() {
        return Ok(State::Absent);
    }
    let Ok(version) = fs::read_to_string(folder.join(MARK)) else {
        bail!("{} is there and not a libtorch; choose another --folder", folder.display());
    };
    Ok(if version.trim() == VERSION { State::Current } else { State::Outdated })
}

/// Makes the folder beside its place and moves it there whole.
fn make(folder: &Path, state: State, python: &Path) -> Result<()> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "only for Linux on x86-64; elsewhere install libtorch {VERSION} and name its folder with {VARIABLE}"
    );
    let name = folder.file_name().context("a --folder without a name")?.to_string_lossy();
    let made = folder.with_file_name(format!("{name}.{}", std::process::id()));
    let result = fill(&made, python).and_then(|()| {
        if state == State::Outdated {
            fs::remove_dir_all(folder)?;
        }
        Ok(fs::rename(&made, folder)?)
    });
    if made.exists() {
        fs::remove_dir_all(&made)?;
    }
    result
}

fn fill(folder: &Path, python: &Path) -> Result<()> {
    let wheels = folder.join("wheels");
    fs::create_dir_all(&wheels)?;
    let mut download = Command::new(python);
    download.args(["-m", "pip", "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check"]);
    download.args(["--only-binary=:all:", "--python-version=3.11", "--implementation=cp"]);
    download.args(PLATFORMS.map(|platform| format!("--platform={platform}")));
    download.arg("--dest").arg(&wheels).args(WHEELS);
    ensure!(succeeds(&mut download)?, "pip has not downloaded {}", WHEELS.join(", "));

    let mut unpack = Command::new(python);
    unpack.args(["-", &wheels.to_string_lossy(), &folder.to_string_lossy()]).args(LIBRARIES);
    ensure!(fed(&mut unpack, UNPACK)?, "cannot unpack the wheels");
    fs::remove_dir_all(&wheels)?;

    // The one of the wheel asks for the library for GPUs, so another of its name asks for the others alone.
    let libraries = folder.join("lib");
    let mut link = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    link.args(["-shared", "-fPIC", "-x", "c", "-", "-o"]).arg(libraries.join("libtorch.so"));
    link.arg("-L").arg(&libraries).args(["-Wl,-soname,libtorch.so", "-Wl,--no-as-needed"]);
    link.args(["-ltorch_cpu", "-lc10", "-Wl,-rpath,$ORIGIN", "-Wl,--allow-shlib-undefined"]);
    ensure!(fed(&mut link, "int muster_libtorch;\n")?, "cannot link libtorch.so");
    fs::write(folder.join(MARK), format!("{VERSION}\n"))?;
    Ok(())
}

/// Runs a command that reads `input`; whether it succeeded.
fn fed(command: &mut Command, input: &str) -> Result<bool> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.stdin(Stdio::piped()).spawn().with_context(|| format!("cannot start {name}"))?;
    // A program that ends early says why by itself.
    let _written = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    Ok(child.wait()?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_something_else_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("libtorch");
        assert_eq!(state(&folder).unwrap(), State::Absent);
        fs::create_dir(&folder).unwrap();
        assert!(state(&folder).unwrap_err().to_string().ends_with("choose another --folder"));
        fs::write(folder.join(MARK), "2.12.1\n").unwrap();
        assert_eq!(state(&folder).unwrap(), State::Outdated);
        fs::write(folder.join(MARK), format!("{VERSION}\n")).unwrap();
        assert_eq!(state(&folder).unwrap(), State::Current);
    }

    #[test]
    fn what_fails_leaves_nothing_behind() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("libtorch");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(MARK), "2.12.1\n").unwrap();
        let error = make(&folder, State::Outdated, Path::new("false")).unwrap_err();
        assert!(error.to_string().starts_with("pip has not downloaded torch==2.13.0, "), "{error}");
        let left: Vec<_> = fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, std::slice::from_ref(&folder), "only what was there");
        assert_eq!(fs::read_to_string(folder.join(MARK)).unwrap(), "2.12.1\n");
    }
}
