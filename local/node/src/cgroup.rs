//! Control groups: hold a container to its memory and processor limits.
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
            let missing = |hierarchy: &Hierarchy| {
                (place.memory && !hierarchies.iter().any(|other| other.memory) && hierarchy.memory)
                    || (place.processor
                        && !hierarchies.iter().any(|other| other.processor)
                        && hierarchy.processor)
            };
            if let Some(hierarchy) = place.enter(name).filter(missing) {
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
            if memory.is_none() && processor.is_none() {
                continue;
            }
            let folder = hierarchy.folder.join(group(pod, container, attempt));
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
}

impl Place {
    fn enter(&self, name: &str) -> Option<Hierarchy> {
        let Self { own, version, memory, processor, .. } = self;
        if *version == Version::One {
            let folder = own.join(name);
            return make_folder(&folder).then_some(Hierarchy {
                folder,
                version: *version,
                memory: *memory,
                processor: *processor,
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
            if !memory {
                let _ = fs::remove_dir(&folder);
            }
            memory.then_some(Hierarchy { folder, version: Version::Two, memory, processor })
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
            let (version, memory, processor, path) = match kind {
                "cgroup2" => (Version::Two, true, true, own_path("")?),
                "cgroup" => {
                    let (memory, processor) = (options.contains(&"memory"), options.contains(&"cpu"));
                    let controller = if memory { "memory" } else { "cpu" };
                    (Version::One, memory, processor, own_path(controller)?)
                }
                _ => return None,
            };
            // In a container the mount may show only a part of the hierarchy.
            let path = Path::new("/").join(path);
            let below = path.strip_prefix(mount_root).unwrap_or(Path::new(""));
            let own = if below.as_os_str().is_empty() { mounted.clone() } else { mounted.join(below) };
            (memory || processor).then_some(Place { root: mounted, own, version, memory, processor })
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
        let found = places(mounts, "9:memory:/a/b\n3:cpu,cpuacct:/\n0::/\n");
        let shown: Vec<_> =
            found.iter().map(|place| (place.own.to_str().unwrap(), place.memory, place.processor)).collect();
        assert_eq!(
            shown,
            [("/sys/fs/cgroup/memory/a/b", true, false), ("/sys/fs/cgroup/cpu,cpuacct", false, true)]
        );
        let mounts = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = places(mounts, "0::/user.slice/user-1000.slice/session-2.scope\n");
        assert_eq!(found[0].own, Path::new("/sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope"));
        assert_eq!(found[0].version, Version::Two);
    }
}
