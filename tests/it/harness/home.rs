//! The state folder of one cluster, and the proof that nothing of it is left when it has stopped.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, interval};

use super::program::{self, Finished, muster_path};

/// How long ended processes may take to vanish from /proc.
const VANISH: Duration = Duration::from_secs(10);

/// A folder for a cluster's state, with a folder beside it for files of the test.
pub(crate) struct Home {
    folder: TempDir,
    state: PathBuf,
}

impl Home {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("muster-it-").tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("work")).expect("work");
        let state = folder.path().join("home");
        Self { folder, state }
    }

    /// The same with the state in a folder of the test.
    pub(crate) fn with_state_in(folder: &Path) -> Self {
        Self { state: folder.join("home"), ..Self::new() }
    }

    /// `MUSTER_HOME`.
    pub(crate) fn path(&self) -> PathBuf {
        self.state.clone()
    }

    /// Where commands are run and manifests lie.
    pub(crate) fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path().join("kubeconfig")
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.work().join(name);
        fs::write(&path, text).expect("a file of the test");
        path
    }

    /// A command with this home.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = program::command(program.as_ref());
        command.env("MUSTER_HOME", self.path()).env("KUBECONFIG", self.kubeconfig());
        // `kubectl` caches discovery by address, and ports come back.
        command.env("KUBECACHEDIR", self.work().join(".kube")).current_dir(self.work());
        command
    }

    pub(crate) fn muster(&self, words: &[&str]) -> Command {
        let mut command = self.command(muster_path());
        // A kubeconfig that is named stands for a cluster of its own.
        command.args(words).env_remove("KUBECONFIG");
        command
    }

    pub(crate) fn kubectl(&self, words: &[&str]) -> Command {
        let mut command = self.command("kubectl");
        command.args(words);
        command
    }

    pub(crate) async fn run_muster(&self, words: &[&str]) -> Finished {
        program::run(self.muster(words)).await
    }

    pub(crate) async fn run_kubectl(&self, words: &[&str]) -> Finished {
        program::run(self.kubectl(words)).await
    }

    /// No process, mount or network interface of this home may be left.
    pub(crate) async fn assert_nothing_left(&self) {
        let deadline = Instant::now() + VANISH;
        let mut every = interval(Duration::from_millis(50));
        loop {
            every.tick().await;
            let left = self.leftovers();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind:\n{left}");
        }
    }

    fn leftovers(&self) -> String {
        let mut left = String::new();
        for (process, command) in self.processes() {
            let _infallible = writeln!(left, "process {process}: {command}");
        }
        let roots = self.roots();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        for mount in mounts.lines().filter(|line| roots.iter().any(|root| line.contains(root))) {
            let _infallible = writeln!(left, "mount {mount}");
        }
        let bridge = Path::new("/sys/class/net").join(self.bridge());
        if bridge.exists() {
            let _infallible = writeln!(left, "network interface {}", bridge.display());
        }
        let pods = fs::read_dir(self.path().join("node")).into_iter().flatten().flatten();
        for entry in pods.filter(|entry| entry.file_name() == "pods") {
            for pod in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                let _infallible = writeln!(left, "folder {}", pod.path().display());
            }
        }
        let name = self.bridge().replace("mu-", "muster-");
        for group in control_groups(Path::new("/sys/fs/cgroup"), &name) {
            let _infallible = writeln!(left, "control group {}", group.display());
        }
        left
    }

    /// Processes whose command line or environment names this home.
    fn processes(&self) -> Vec<(u32, String)> {
        let roots = self.roots();
        let names = |text: &str| roots.iter().any(|root| text.contains(root));
        let shown = |process: u32, name: &str| {
            let bytes = std::fs::read(format!("/proc/{process}/{name}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let named = processes().into_iter().map(|process| (process, shown(process, "cmdline")));
        named.filter(|(process, line)| names(line) || names(&shown(*process, "environ"))).collect()
    }

    /// What names this home in command lines, environments and mounts.
    fn roots(&self) -> [String; 2] {
        [self.folder.path(), &self.state].map(|path| path.display().to_string())
    }

    /// The name of the bridge that the node gives its pods: it follows from the node's folder.
    fn bridge(&self) -> String {
        let digest = Sha256::digest(self.path().join("node").as_os_str().as_encoded_bytes());
        format!("mu-{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
    }
}

/// Control groups of a node's name, wherever they hang.
fn control_groups(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name() == name {
                found.push(entry.path());
            } else {
                found.extend(control_groups(&entry.path(), name));
            }
        }
    }
    found
}

/// All processes of the machine.
pub(crate) fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// A process and those that it started, directly or not: also those of pods, which see no path of the home.
pub(crate) fn family(root: u32) -> Vec<u32> {
    let parent = |process: &u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let parents: Vec<(u32, u32)> =
        processes().into_iter().filter_map(|process| Some((process, parent(&process)?))).collect();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(member) = family.get(next).copied() {
        family.extend(parents.iter().filter(|(_, parent)| *parent == member).map(|(process, _)| *process));
        next += 1;
    }
    family
}

/// Waits until processes have ended, whether or not somebody has collected them.
pub(crate) async fn wait_until_ended(family: &[u32]) {
    let runs = |process: &&u32| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
    };
    let deadline = Instant::now() + VANISH;
    let mut every = interval(Duration::from_millis(50));
    loop {
        every.tick().await;
        let left: Vec<&u32> = family.iter().filter(runs).collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "processes {left:?} of {family:?} are left");
    }
}
