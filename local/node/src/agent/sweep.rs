//! Ends what a pod without namespaces left behind when its init was killed from outside.
//!
//! An init that ends in order takes everything along. One that is killed cannot, and then the spawner ends its orphans,
//! if it is the one that started them. After a restart of the agent it is not: then the pod's own mark in the environment
//! of its processes is what is left to know them by.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Holds the uid of the pod in the environment of its containers.
pub(super) const MARKER: &str = "MUSTER_POD_UID";
/// A process may start others while it is being looked for; so often the search is repeated.
const ROUNDS: usize = 10;

/// Kills every process that the pod's mark is on.
pub(super) fn end_processes_of(uid: &str) {
    let mark = format!("{MARKER}={uid}");
    for _ in 0..ROUNDS {
        let found = marked(Path::new("/proc"), &mark);
        if found.is_empty() {
            return;
        }
        for pid in found {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Processes with this entry in their environment; those that ended have none any more.
fn marked(processes: &Path, mark: &str) -> Vec<i32> {
    let entries = fs_err::read_dir(processes).into_iter().flatten().flatten();
    let numbered =
        entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<i32>().ok()?, entry.path())));
    let is_marked = |path: &Path| {
        let environment = fs_err::read(path.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    numbered.filter(|(_, path)| is_marked(path)).map(|(pid, _)| pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_mark_counts() {
        let folder = tempfile::tempdir().unwrap();
        for (pid, environment) in [
            ("7", "A=1\0MUSTER_POD_UID=u1\0"),
            ("8", "MUSTER_POD_UID=u12\0"),
            ("self", "MUSTER_POD_UID=u1\0"),
        ] {
            fs_err::create_dir(folder.path().join(pid)).unwrap();
            fs_err::write(folder.path().join(pid).join("environ"), environment).unwrap();
        }
        assert_eq!(marked(folder.path(), "MUSTER_POD_UID=u1"), [7]);
    }
}
