//! The peers, found on the machine or installed into folders of their own below `target/peers`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use tokio::process::Command;

use super::peer::{Peer, Requests};
use crate::area::Settings;

const MPI_PROGRAM: &str = include_str!("peers/all_reduce_mpi.c");
const TORCH_PROGRAM: &str = include_str!("peers/all_reduce_torch.py");

/// Open MPI 4.1 between this many ranks: the machine's own, or Debian's packages.
pub(super) async fn open_mpi(settings: &Settings, ranks: usize) -> Result<Peer> {
    let folder = peers(settings)?.join("openmpi");
    fs::create_dir_all(&folder)?;
    let installation = match OpenMpi::of_machine().await {
        Some(installation) => installation,
        None => OpenMpi::of_packages(&folder).await?,
    };
    let source = folder.join("all_reduce.c");
    let program = folder.join("all_reduce");
    fs::write(&source, MPI_PROGRAM)?;
    let mut compile = installation.command(&installation.compiler);
    compile.args(["-O3", "-o"]).arg(&program).arg(&source).args(&installation.compiler_flags);
    run(compile, "compile a program for Open MPI").await?;

    let requests = Requests::new(ranks)?;
    let mut command = installation.command(&installation.launcher);
    command.args(["--allow-run-as-root", "--oversubscribe", "-n", &ranks.to_string()]);
    command.args(["--mca", "pml", "ob1", "--mca", "btl", "self,vader"]);
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if ranks > processors {
        command.args(["--mca", "mpi_yield_when_idle", "1"]);
    }
    command.arg(program).arg(requests.folder());
    Peer::start(requests, vec![command])
}

/// Where Open MPI is.
struct OpenMpi {
    launcher: PathBuf,
    compiler: PathBuf,
    compiler_flags: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
}

impl OpenMpi {
    async fn of_machine() -> Option<Self> {
        // Where there is another MPI, too, the plain names may be its.
        for (launcher, compiler) in [("mpirun.openmpi", "mpicc.openmpi"), ("mpirun", "mpicc")] {
            let told = async |program| Command::new(program).arg("--version").output().await.ok();
            let Some((version, _)) = told(launcher).await.zip(told(compiler).await) else { continue };
            if String::from_utf8_lossy(&version.stdout).contains("(Open MPI) 4.1") {
                return Some(Self {
                    launcher: launcher.into(),
                    compiler: compiler.into(),
                    compiler_flags: vec![],
                    environment: vec![],
                });
            }
        }
        None
    }

    /// Unpacks Debian's packages without installing them.
    async fn of_packages(folder: &Path) -> Result<Self> {
        let root = folder.join("root");
        let complete = folder.join("complete");
        if !complete.is_file() {
            let packages = folder.join("packages");
            fs::create_dir_all(packages.join("partial"))?;
            let mut download = Command::new("apt-get");
            download.args(["install", "--yes", "--download-only", "--no-install-recommends"]);
            download.arg("--option").arg(option("Dir::Cache::archives=", &packages));
            download.args(["--option", "Debug::NoLocking=1", "openmpi-bin", "libopenmpi-dev"]);
            run(download, "download openmpi-bin and libopenmpi-dev").await?;
            for entry in fs::read_dir(&packages)? {
                let package = entry?.path();
                if package.extension().is_some_and(|extension| extension == "deb") {
                    let mut unpack = Command::new("dpkg-deb");
                    unpack.arg("--extract").arg(package).arg(&root);
                    run(unpack, "unpack a package").await?;
                }
            }
            fs::write(&complete, "")?;
        }
        let libraries = library_folder(&root.join("usr/lib"))?;
        let own_libraries = libraries.join("openmpi/lib");
        let search_path =
            std::env::join_paths([&libraries, &own_libraries]).context("a path with a colon")?;
        Ok(Self {
            launcher: root.join("usr/bin/mpirun.openmpi"),
            compiler: "cc".into(),
            compiler_flags: vec![
                option("-I", &libraries.join("openmpi/include")),
                option("-L", &own_libraries),
                "-lmpi".into(),
                option("-Wl,-rpath-link,", &libraries),
            ],
            environment: vec![
                ("OPAL_PREFIX", root.join("usr").into()),
                ("OPAL_LIBDIR", own_libraries.into()),
                ("LD_LIBRARY_PATH", search_path),
            ],
        })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// The folder of the machine's architecture, which holds Open MPI.
fn library_folder(parent: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(parent)? {
        let folder = entry?.path();
        if folder.join("openmpi/lib").is_dir() {
            return Ok(folder);
        }
    }
    anyhow::bail!("the packages hold no Open MPI below {}", parent.display())
}

/// `torch.distributed` over gloo between this many ranks, from the Python package index.
pub(super) async fn gloo(settings: &Settings, ranks: usize) -> Result<Peer> {
    Torch::of_packages(settings).await?.all_reduce("gloo", ranks)
}

/// A Python environment that has torch.
pub(super) struct Torch {
    folder: PathBuf,
}

impl Torch {
    /// Installs it, unless it is there.
    pub(super) async fn of_packages(settings: &Settings) -> Result<Self> {
        let torch = Self { folder: peers(settings)?.join("torch") };
        let has_torch = async || {
            let mut check = torch.python();
            check.args(["-c", "import torch.distributed as d; assert d.is_gloo_available()"]);
            // A wheel of ours that was left there is no matter here.
            check.env("TORCH_DEVICE_BACKEND_AUTOLOAD", "0");
            run(check, "import torch").await
        };
        if has_torch().await.is_err() {
            let mut create = Command::new("python3");
            create.args(["-m", "venv"]).arg(&torch.folder);
            run(create, "create a Python environment").await?;
            torch.install(&["torch", "numpy"]).await?;
            has_torch().await?;
        }
        Ok(torch)
    }

    /// Builds `muster-torch` as it ships, and installs it.
    pub(super) async fn with_muster(settings: &Settings) -> Result<Self> {
        let torch = Self::of_packages(settings).await?;
        torch.install(&["maturin>=1.9,<2"]).await?;
        let wheels = peers(settings)?.join("wheels");
        if wheels.exists() {
            fs::remove_dir_all(&wheels)?;
        }
        let mut build = Command::new(torch.folder.join("bin/maturin"));
        build.current_dir(settings.project.join("trainer/torch")).args(["build", "--out"]).arg(&wheels);
        run(build, "build the wheel of muster-torch").await?;
        let wheel = fs::read_dir(&wheels)?.next().context("maturin left no wheel")??.path();
        let wheel = wheel.to_str().context("a wheel's name is not UTF-8")?;
        torch.install(&["--force-reinstall", "--no-deps", wheel]).await?;
        Ok(torch)
    }

    async fn install(&self, what: &[&str]) -> Result<()> {
        let mut install = self.python();
        install.args(["-m", "pip", "install", "--no-cache-dir", "--quiet"]).args(what);
        run(install, &format!("install {}", what.join(" "))).await
    }

    /// Writes a program of ours to where it can be started.
    pub(super) fn program(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Its interpreter.
    pub(super) fn python(&self) -> Command {
        Command::new(self.folder.join("bin/python"))
    }

    /// All-reduce between this many ranks over one of its backends.
    pub(super) fn all_reduce(&self, backend: &str, ranks: usize) -> Result<Peer> {
        let requests = Requests::new(ranks)?;
        let script = self.program("all_reduce.py", TORCH_PROGRAM)?;
        let command = |rank: usize| {
            let mut command = self.python();
            command.arg(&script).arg(requests.folder());
            command.args([rank.to_string(), ranks.to_string(), backend.to_owned()]);
            command
        };
        let commands = (0..ranks).map(command).collect();
        Peer::start(requests, commands)
    }
}

/// Builds an example of the trainer runtime with libtorch, which it gets first; says where it lies.
pub(super) async fn with_libtorch(settings: &Settings, example: &str) -> Result<PathBuf> {
    let target = peers(settings)?.join("libtorch");
    let cargo = || {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&settings.project);
        cargo
    };
    let mut get = cargo();
    get.args(["xtask", "libtorch"]);
    run(get, "get libtorch").await?;
    let mut build = cargo();
    build.args(["build", "--release", "--package", "muster-trainer-runtime", "--features", "libtorch"]);
    build.args(["--example", example, "--target-dir"]).arg(&target);
    run(build, &format!("build {example} with libtorch")).await?;
    Ok(target.join("release/examples").join(example))
}

fn peers(settings: &Settings) -> Result<PathBuf> {
    let folder = settings.project.join("target/peers");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn option(name: &str, value: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(value);
    option
}

/// Runs a command to its end; an error has the last line of what it says.
pub(super) async fn run(mut command: Command, purpose: &str) -> Result<()> {
    let output = command.kill_on_drop(true).output().await.with_context(|| format!("cannot {purpose}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    let last = error.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    ensure!(output.status.success(), "cannot {purpose}: {last}");
    Ok(())
}
