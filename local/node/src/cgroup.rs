//! Control groups: hold a container to its limits of memory, processor time and processes.
//!
//! A group is made only for a container with limits. Both versions of the kernel's interface are used, whichever the
//! machine has; where neither can be written the caller falls back to limits per process.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

/// Length of the period over which processor time is shared out, in microseconds.
const PERIOD: u64 = 100_000;
/// The kernel takes no smaller share, in microseconds per period.
const SMALLEST_QUOTA: u64 = 1_000;

/// What a container may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Memory in bytes.
    pub(crate) memory: Option<u64>,
    /// Processor time in thousandths of a core.
    pub(crate) processor: Option<u64>,
    /// Processes and threads of the whole pod.
    pub(crate) processes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A folder of one hierarchy in which the node makes its groups.
#[derive(Debug)]
struct Hierarchy {
    folder: PathBuf,
    version: Version,
    memory: bool,
    processor: bool,
    processes: bool,
}

/// The hierarchies of this machine that the node may use.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    hierarchies: Vec<Hierarchy>,
}

impl Groups {
    /// Looks for hierarchies that can be written and makes the folder `name` in each.
    pub(crate) fn find(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for place in places(&mounts, &own) {
            let adds = |has: fn(&Hierarchy) -> bool, hierarchy: &Hierarchy| {
                has(hierarchy) && !hierarchies.iter().any(has)
            };
            let adds_something = |hierarchy: &Hierarchy| {
                adds(|one| one.memory, hierarchy)
                    || adds(|one| one.processor, hierarchy)
                    || adds(|one| one.processes, hierarchy)
            };
            if let Some(hierarchy) = place.enter(name).filter(adds_something) {
                hierarchies.push(hierarchy);
            }
        }
        Self { hierarchies }
    }

    /// Whether memory can be limited.
    pub(crate) fn limit_memory(&self) -> bool {
        self.hierarchies.iter().any(|hierarchy| hierarchy.memory)
    }

    /// Makes the groups of one start of a container; returns the files that its process must write itself to.
    pub(crate) fn make(
        &self,
        pod: &str,
        container: &str,
        attempt: u32,
        limits: Limits,
    ) -> io::Result<Vec<PathBuf>> {
        let mut joins = Vec::new();
        for hierarchy in &self.hierarchies {
            let memory = limits.memory.filter(|_| hierarchy.memory);
            let processor = limits.processor.filter(|_| hierarchy.processor);
            let processes = limits.processes.filter(|_| hierarchy.processes);
            if memory.is_none() && processor.is_none() && processes.is_none() {
                continue;
            }
            // Where processes have a hierarchy of their own all containers of the pod share the limit. In version 2
            // each container has the whole of it.
            let shared = hierarchy.version == Version::One && hierarchy.processes;
            let name = if shared { format!("{pod}.") } else { group(pod, container, attempt) };
            let folder = hierarchy.folder.join(name);
            fs::create_dir_all(&folder)?;
            if let Some(bytes) = memory {
                let (file, swap) = match hierarchy.version {
                    Version::One => ("memory.limit_in_bytes", ("memory.memsw.limit_in_bytes", bytes)),
                    Version::Two => ("memory.max", ("memory.swap.max", 0)),
                };
                fs::write(folder.join(file), bytes.to_string())?;
                // Not every kernel counts swap.
                let _ = fs::write(folder.join(swap.0), swap.1.to_string());
            }
            if let Some(milli) = processor {
                let quota = (milli * PERIOD / 1000).max(SMALLEST_QUOTA);
                match hierarchy.version {
                    Version::One => {
                        fs::write(folder.join("cpu.cfs_period_us"), PERIOD.to_string())?;
                        fs::write(folder.join("cpu.cfs_quota_us"), quota.to_string())?;
                    }
                    Version::Two => fs::write(folder.join("cpu.max"), format!("{quota} {PERIOD}"))?,
                }
            }
            if let Some(count) = processes {
                fs::write(folder.join("pids.max"), count.to_string())?;
            }
            joins.push(folder.join("cgroup.procs"));
        }
        Ok(joins)
    }

    /// Whether the kernel killed a process of the container because it used too much memory.
    pub(crate) fn ran_out_of_memory(&self, pod: &str, container: &str, attempt: u32) -> bool {
        self.hierarchies.iter().filter(|hierarchy| hierarchy.memory).any(|hierarchy| {
            let file = match hierarchy.version {
                Version::One => "memory.oom_control",
                Version::Two => "memory.events",
            };
            let path = hierarchy.folder.join(group(pod, container, attempt)).join(file);
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
        })
    }

    /// Removes the groups of a container's earlier starts, or of a whole pod; those that still have processes stay.
    pub(crate) fn remove(&self, pod: &str, container: Option<&str>) {
        let prefix = container.map_or_else(|| format!("{pod}."), |name| format!("{pod}.{name}."));
        for hierarchy in &self.hierarchies {
            for entry in fs::read_dir(&hierarchy.folder).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(&prefix) {
                    let _ = fs::remove_dir(entry.path());
                }
            }
        }
    }

    /// The folders that hold the groups, for [`remove_folders`].
    pub(crate) fn folders(&self) -> impl Iterator<Item = &Path> {
        self.hierarchies.iter().map(|hierarchy| hierarchy.folder.as_path())
    }
}

/// Removes folders of groups and the groups in them; `false` while processes are left.
pub(crate) fn remove_folders(folders: &[PathBuf]) -> bool {
    let mut gone = true;
    for folder in folders {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                let _ = fs::remove_dir(entry.path());
            }
        }
        gone &= fs::remove_dir(folder).is_ok() || !folder.exists();
    }
    gone
}

fn group(pod: &str, container: &str, attempt: u32) -> String {
    format!("{pod}.{container}.{attempt}")
}

/// Where this process is in a hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    root: PathBuf,
    own: PathBuf,
    version: Version,
    memory: bool,
    processor: bool,
    processes: bool,
}

impl Place {
    fn enter(&self, name: &str) -> Option<Hierarchy> {
        let Self { own, version, memory, processor, processes, .. } = self;
        if *version == Version::One {
            let folder = own.join(name);
            return make_folder(&folder).then_some(Hierarchy {
                folder,
                version: *version,
                memory: *memory,
                processor: *processor,
                processes: *processes,
            });
        }
        // A group with processes cannot hand controllers on to groups below it, so the node's is beside its own, or
        // higher up: in the nearest one that hands them on.
        own.ancestors().skip(1).take_while(|above| above.starts_with(&self.root)).find_map(|above| {
            let handed = fs::read_to_string(above.join("cgroup.subtree_control")).unwrap_or_default();
            let has = |controller: &str| handed.split_whitespace().any(|name| name == controller);
            let folder = above.join(name);
            if !has("memory") || !make_folder(&folder) {
                return None;
            }
            let hand_on = |controller: &str| {
                fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}")).is_ok()
            };
            let memory = hand_on("memory");
            let processor = has("cpu") && hand_on("cpu");
            let processes = has("pids") && hand_on("pids");
            if !memory {
                let _ = fs::remove_dir(&folder);
            }
            memory.then_some(Hierarchy { folder, version: Version::Two, memory, processor, processes })
        })
    }
}

fn make_folder(folder: &Path) -> bool {
    match fs::create_dir(folder) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::AlreadyExists,
    }
}

/// The hierarchies for memory and processor time, from `mountinfo` and `cgroup` of a process.
fn places(mounts: &str, own: &str) -> Vec<Place> {
    let own_path = |wanted: &str| {
        own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (controllers, path) = (parts.nth(1)?, parts.next()?);
            let found = controllers.split(',').any(|controller| controller == wanted);
            found.then(|| path.trim_start_matches('/').to_owned())
        })
    };
    mounts
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut fields = left.split(' ').skip(3);
            let (mount_root, mounted) = (fields.next()?, PathBuf::from(fields.next()?));
            let mut right = right.split(' ');
            let kind = right.next()?;
            let options: Vec<&str> = right.nth(1)?.split(',').collect();
            let (version, [memory, processor, processes], path) = match kind {
                "cgroup2" => (Version::Two, [true; 3], own_path("")?),
                "cgroup" => {
                    let controllers = ["memory", "cpu", "pids"];
                    let has = controllers.map(|controller| options.contains(&controller));
                    let (controller, _) = controllers.iter().zip(has).find(|(_, has)| *has)?;
                    (Version::One, has, own_path(controller)?)
                }
                _ => return None,
            };
            // In a container the mount may show only a part of the hierarchy.
            let path = Path::new("/").join(path);
            let below = path.strip_prefix(mount_root).unwrap_or(Path::new(""));
            let own = if below.as_os_str().is_empty() { mounted.clone() } else { mounted.join(below) };
            Some(Place { root: mounted, own, version, memory, processor, processes })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_both_versions_are_found() {
        let mounts = "\
            24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            25 24 0:23 / /sys/fs/cgroup/memory rw shared:3 - cgroup cgroup rw,memory\n\
            26 24 0:24 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            27 24 0:25 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let found = places(mounts, "9:memory:/a/b\n3:cpu,cpuacct:/\n8:pids:/p\n0::/\n");
        let shown: Vec<_> = found
            .iter()
            .map(|place| (place.own.to_str().unwrap(), [place.memory, place.processor, place.processes]))
            .collect();
        assert_eq!(
            shown,
            [
                ("/sys/fs/cgroup/memory/a/b", [true, false, false]),
                ("/sys/fs/cgroup/cpu,cpuacct", [false, true, false]),
                ("/sys/fs/cgroup/pids/p", [false, false, true]),
            ]
        );
        let mounts = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = places(mounts, "0::/user.slice/user-1000.slice/session-2.scope\n");
        assert_eq!(found[0].own, Path::new("/sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope"));
        assert_eq!(found[0].version, Version::Two);
    }

    /// A folder that looks as the second version's hierarchy does, with a session below a slice that hands its
    /// controllers on.
    fn hierarchy(controllers: &str) -> (tempfile::TempDir, Place) {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("user.slice/session.scope");
        fs::create_dir_all(&own).unwrap();
        fs::write(folder.path().join("user.slice/cgroup.subtree_control"), controllers).unwrap();
        let root = folder.path().to_owned();
        (folder, Place { root, own, version: Version::Two, memory: true, processor: true, processes: true })
    }

    #[test]
    fn the_second_versions_limits_are_written_beside_the_own_group() {
        let (folder, place) = hierarchy("cpu memory pids\n");
        let groups = Groups { hierarchies: vec![place.enter("node").unwrap()] };
        let limits = Limits { memory: Some(1 << 20), processor: Some(1500), processes: Some(64) };
        let joins = groups.make("uid", "main", 2, limits).unwrap();
        let group = folder.path().join("user.slice/node/uid.main.2");
        assert_eq!(joins, [group.join("cgroup.procs")]);
        let text = |name: &str| fs::read_to_string(group.join(name)).unwrap();
        let written = ["memory.max", "memory.swap.max", "cpu.max", "pids.max"].map(text);
        assert_eq!(written, ["1048576", "0", "150000 100000", "64"]);
        fs::write(group.join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
        assert!(groups.ran_out_of_memory("uid", "main", 2));
    }

    #[test]
    fn a_hierarchy_without_controllers_is_left_alone() {
        let (folder, place) = hierarchy("\n");
        assert!(place.enter("node").is_none());
        assert!(!folder.path().join("user.slice/node").exists());
    }
}
