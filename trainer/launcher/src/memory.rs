//! Whether the kernel killed for want of memory, as the control group counts it.

use std::path::{Path, PathBuf};

use fs_err as fs;

/// The counter of the control group that this process is in.
#[derive(Debug)]
pub(crate) struct OutOfMemory {
    events: Option<PathBuf>,
    before: u64,
}

impl OutOfMemory {
    /// Counts from now. `root` is `/` outside of tests.
    pub(crate) fn watch(root: &Path) -> Self {
        let events = events_file(root);
        let before = events.as_deref().and_then(kills).unwrap_or_default();
        Self { events, before }
    }

    /// Whether a process of the control group, or of one below it, was killed since.
    pub(crate) fn happened(&self) -> bool {
        self.events.as_deref().and_then(kills).is_some_and(|now| now > self.before)
    }
}

/// `memory.events` of version 2, or `memory.oom_control` of version 1.
fn events_file(root: &Path) -> Option<PathBuf> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let candidates = groups.lines().filter_map(|line| {
        let (_, controllers_and_path) = line.split_once(':')?;
        let (controllers, path) = controllers_and_path.split_once(':')?;
        let path = path.trim_start_matches('/');
        let mount = root.join("sys/fs/cgroup");
        match controllers {
            "" => Some([mount.join(path).join("memory.events"), mount.join("memory.events")]),
            "memory" => {
                let mount = mount.join("memory");
                Some([mount.join(path).join("memory.oom_control"), mount.join("memory.oom_control")])
            }
            _ => None,
        }
    });
    // Without a namespace of its own, a container sees its path on the host but its group at the mount.
    candidates.flatten().find(|file| kills(file).is_some())
}

fn kills(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn kills_are_counted_in_the_own_group() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/self/cgroup", "0::/pods/one\n");
        write(root.path(), "sys/fs/cgroup/memory.events", "oom_kill 7\n");
        write(root.path(), "sys/fs/cgroup/pods/one/memory.events", "low 0\noom 3\noom_kill 2\n");
        let memory = OutOfMemory::watch(root.path());
        write(root.path(), "sys/fs/cgroup/memory.events", "oom_kill 9\n");
        assert!(!memory.happened(), "that was another group");
        write(root.path(), "sys/fs/cgroup/pods/one/memory.events", "low 0\noom 4\noom_kill 3\n");
        assert!(memory.happened());
    }

    #[test]
    fn version_one_and_containers_without_a_namespace_are_understood() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/docker/abc\n");
        write(root.path(), "sys/fs/cgroup/memory/memory.oom_control", "under_oom 0\noom_kill 0\n");
        let memory = OutOfMemory::watch(root.path());
        write(root.path(), "sys/fs/cgroup/memory/memory.oom_control", "under_oom 0\noom_kill 1\n");
        assert!(memory.happened());
    }

    #[test]
    fn where_nothing_is_counted_nothing_happened() {
        let root = tempfile::tempdir().unwrap();
        assert!(!OutOfMemory::watch(root.path()).happened());
    }
}
