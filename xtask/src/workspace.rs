//! The project's tree as cargo and git see it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::report;

/// The tree.
pub(crate) struct Workspace {
    /// Its root folder.
    pub(crate) root: PathBuf,
    /// Where cargo builds.
    pub(crate) target: PathBuf,
    /// Its crates.
    pub(crate) packages: Vec<Package>,
}

/// What `cargo metadata` says of a crate.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// A line of a crate's dependencies.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` for an ordinary one, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
    workspace_root: PathBuf,
}

impl Workspace {
    /// Asks cargo for the tree that this program belongs to.
    pub(crate) fn find() -> Result<Self> {
        let output = Command::new(cargo())
            .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
            .output()
            .context("cargo metadata")?;
        ensure!(
            output.status.success(),
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let metadata: Metadata = serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
        let Metadata { packages, target_directory, workspace_root } = metadata;
        Ok(Self { root: workspace_root, target: target_directory, packages })
    }

    /// A command that runs in the root folder.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }

    /// A cargo command that runs in the root folder.
    pub(crate) fn cargo<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.command(cargo());
        command.args(arguments);
        command
    }

    /// Builds `muster` and says where it lies.
    pub(crate) fn build_program(&self) -> Result<PathBuf> {
        ensure!(succeeds(&mut self.cargo(["build", "--package", "muster"]))?, "muster does not build");
        Ok(self.target.join("debug/muster"))
    }

    /// Builds all programs and tests, and says where `muster` lies. In one go: a test's dependencies may turn on
    /// features of what a program depends on, and nothing big should be built twice.
    pub(crate) fn build_all(&self, release: bool) -> Result<PathBuf> {
        let mut command = self.cargo(["build", "--workspace", "--bins", "--tests"]);
        command.args(release.then_some("--release"));
        ensure!(succeeds(&mut command)?, "the workspace does not build");
        Ok(self.target.join(if release { "release/muster" } else { "debug/muster" }))
    }

    /// Files that git knows or would add, relative to the root.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>> {
        let mut command = self.command("git");
        command.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let output = command.output().context("git ls-files")?;
        ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
        let names = String::from_utf8(output.stdout).context("a file name that is not UTF-8")?;
        let mut files: Vec<PathBuf> = names.split_terminator('\0').map(PathBuf::from).collect();
        // A file that was deleted and not yet committed is still listed.
        files.retain(|file| self.root.join(file).is_file());
        files.sort();
        files.dedup();
        Ok(files)
    }
}

impl Package {
    /// Its folder relative to the root, such as `local/store`.
    pub(crate) fn folder<'a>(&'a self, workspace: &Workspace) -> &'a Path {
        let folder = self.manifest_path.parent().unwrap_or(&self.manifest_path);
        folder.strip_prefix(&workspace.root).unwrap_or(folder)
    }
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs a command whose output goes to the terminal; whether it succeeded.
pub(crate) fn succeeds(command: &mut Command) -> Result<bool> {
    report::note(&format!("$ {}", shown(command)));
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    Ok(status.success())
}

/// Whether a program can be started and likes these arguments.
pub(crate) fn is_installed(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
