//! `muster` as a process, with a state folder of its own. Nothing of it outlives the value that stands for it.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::area::Settings;

const READY_DEADLINE: Duration = Duration::from_mins(1);
/// What `muster up --announce` prints when the cluster takes work.
const READY: &str = "ready";

/// What the kernel counts processor time in, whatever its own clock (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// A state folder, and whatever `muster` runs in it.
pub(crate) struct Home {
    muster: PathBuf,
    folder: TempDir,
}

impl Home {
    /// A fresh one.
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("muster-bars-").tempdir()?;
        Ok(Self { muster: settings.muster.clone(), folder })
    }

    /// The folder of the cluster's state.
    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The kubeconfig that the cluster writes.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.state().join("kubeconfig")
    }

    /// A command of `muster` in this home, which ends when it is dropped.
    pub(crate) fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Command> {
        let mut command = Command::new(&self.muster);
        command.args(arguments).env("MUSTER_HOME", self.state()).env_remove("KUBECONFIG");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).process_group(0);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        command.stderr(log.into_file());
        Ok(command)
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The last lines that it wrote for people.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(10).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Ends what runs here and waits for it.
    fn down(&self) -> Result<ExitStatus> {
        let mut command = std::process::Command::new(&self.muster);
        command.args(["down", "--purge"]).env("MUSTER_HOME", self.state());
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.context("muster down")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // An orderly end, pods included; `muster down` has a deadline of its own. Failing that, what is left
        // is told by the next look at the machine, not by a figure.
        let _status = self.down();
    }
}

/// A running `muster up`.
pub(crate) struct Up {
    /// From the start of the process to its word that it is ready.
    pub(crate) ready_after: Duration,
    // Dropped before the child: what runs here is told to end before it is killed.
    home: Home,
    child: Child,
}

impl Up {
    /// Starts a cluster with a fresh state and waits until it is ready.
    pub(crate) async fn start(settings: &Settings, arguments: &[&str]) -> Result<Self> {
        let home = Home::new(settings)?;
        let mut command = home.command(["up", "--announce"].iter().chain(arguments))?;
        let began = Instant::now();
        let mut child = command.spawn().context("cannot start muster")?;
        let mut lines = BufReader::new(child.stdout.take().context("muster has no output")?).lines();
        let line = timeout(READY_DEADLINE, lines.next_line())
            .await
            .context("the cluster was not ready in time")??;
        let ready_after = began.elapsed();
        if line.as_deref() != Some(READY) {
            bail!("the cluster did not start: {}", home.last_words());
        }
        Ok(Self { ready_after, home, child })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.child.id().context("the cluster has ended")
    }

    /// The kubeconfig that it wrote.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.home.kubeconfig()
    }

    /// Where it runs, for other commands beside it.
    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// Stops it in order; an error when it had ended before, or does not end well.
    pub(crate) async fn stop(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the cluster had ended ({status}): {}", self.home.last_words());
        }
        let pid = i32::try_from(self.pid()?)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .context("no process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status =
            timeout(READY_DEADLINE, self.child.wait()).await.context("the cluster does not stop")??;
        let in_order = status.success() || status.signal() == Some(rustix::process::Signal::TERM.as_raw());
        ensure!(
            in_order || status.code() == Some(143),
            "the cluster stopped with {status}: {}",
            self.home.last_words()
        );
        Ok(())
    }
}

/// The proportional set size of a process and its descendants, in bytes: memory that several share is counted
/// once in all.
pub(crate) fn proportional_set_size(root: u32) -> Result<u64> {
    let mut parents = Vec::new();
    for item in fs::read_dir("/proc")? {
        let name = item?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Some(parent) = parent_of(pid) {
            parents.push((pid, parent));
        }
    }
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(parent) = tree.get(at).copied() {
        tree.extend(parents.iter().filter(|(_, other)| *other == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    let mut total = 0;
    for pid in tree {
        let text = match fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("smaps_rollup")) {
            Ok(text) => text,
            // It has ended since.
            Err(_) if pid != root => continue,
            Err(error) => return Err(error.into()),
        };
        total += kilobytes(&text, "Pss:").with_context(|| format!("process {pid} has no size"))? * 1024;
    }
    Ok(total)
}

/// The proportional set size of a process alone, in bytes.
pub(crate) fn own_proportional_set_size(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    Ok(kilobytes(&text, "Pss:").with_context(|| format!("process {pid} has no size"))? * 1024)
}

/// How long a process has kept processors busy, for itself and in the kernel.
pub(crate) fn processor_time(pid: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let broken = || format!("process {pid} has no processor time");
    let (_, fields) = text.rsplit_once(')').with_context(broken)?;
    let mut ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let mut next = || ticks.next().and_then(Result::ok).with_context(broken);
    let ticks = next()? + next()?;
    Ok(TICK * u32::try_from(ticks).with_context(broken)?)
}

fn parent_of(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_size() {
        let size = proportional_set_size(std::process::id()).unwrap();
        assert!(size > 100_000, "{size}");
        assert!(own_proportional_set_size(std::process::id()).unwrap() <= size);
        assert!(processor_time(std::process::id()).is_ok());
        assert_eq!(kilobytes("Rss:  12 kB\nPss:   7 kB\n", "Pss:"), Some(7));
    }
}
