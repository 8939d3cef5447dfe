//! The file tree a container sees: an overlay over the image's root, the pod's volumes, and its own `/dev` and `/proc`.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

use fs_err as fs;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode as DeviceMode, SFlag, mknod};
use rustix::fs::{
    CWD, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags, fstat, mkdirat, openat, openat2,
};

use crate::protocol::{BindMount, ContainerStart, Sandbox};

const NONE: Option<&str> = None;
/// Devices every container has.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
/// File systems that hold files of the machine; an overlay of `/` does not show what is mounted below it.
const DISK_FILE_SYSTEMS: [&str; 12] =
    ["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "nfs4", "virtiofs", "9p", "vfat"];

/// Keeps the pod's mounts to itself and makes what all its containers share.
pub(super) fn prepare_pod(sandbox: &Sandbox) -> Result<(), String> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .map_err(|error| format!("make mounts private: {error}"))?;
    let shared_memory = sandbox.directory.join("shm");
    let volumes = sandbox.memory_volumes.iter().map(|(path, size)| (path.as_path(), *size, "mode=0777"));
    for (path, size, mode) in volumes.chain([(shared_memory.as_path(), None, "mode=1777")]) {
        let options = size.map_or_else(|| mode.to_owned(), |bytes| format!("{mode},size={bytes}"));
        fs::create_dir_all(path).map_err(|error| error.to_string())?;
        mount(
            Some("tmpfs"),
            path,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some(options.as_str()),
        )
        .map_err(|error| format!("mount memory volume at {}: {error}", path.display()))?;
    }
    Ok(())
}

/// Tries an overlay over `/` with its layers in `directory`.
pub(crate) fn try_overlay(directory: &Path) -> Result<(), String> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).map_err(|error| error.to_string())?;
    mount_overlay(Path::new("/"), directory).map(|_| ())
}

/// Tries what an ordinary user's pods need: a root made of the machine's folders, and its own `/proc`.
pub(crate) fn try_binds(directory: &Path) -> Result<(), String> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).map_err(|error| error.to_string())?;
    let root = mount_binds(Path::new("/"), directory)?;
    mount_process_table(&Tree::open(&root, Create::OnRoot)?)
}

/// Builds the container's root and makes it `/` of this process.
pub(super) fn enter_root(sandbox: &Sandbox, start: &ContainerStart) -> Result<(), String> {
    let root = if sandbox.overlay {
        mount_overlay(&start.root, &start.directory)?
    } else if sandbox.user {
        mount_binds(&start.root, &start.directory)?
    } else {
        let root = start.directory.join("root");
        fs::create_dir_all(&root).map_err(|error| error.to_string())?;
        bind(&start.root, &root, true).map_err(|error| format!("bind {}: {error}", start.root.display()))?;
        root
    };
    let create = match (sandbox.overlay, sandbox.user) {
        (true, _) => Create::Anywhere,
        (false, true) => Create::OnRoot,
        (false, false) => Create::Nowhere,
    };
    let tree = Tree::open(&root, create)?;
    if sandbox.overlay && start.root == Path::new("/") {
        for path in disks_below_root(&sandbox.directory) {
            // A disk that cannot be shown is no reason not to run: most containers never look there.
            if let Ok(target) = tree.folder(&path) {
                let _ = bind(&path, &target.path(), true);
            }
        }
    }
    mount_process_table(&tree)?;
    let system = tree.folder(Path::new("/sys"))?;
    bind(Path::new("/sys"), &system.path(), true).map_err(|error| format!("bind /sys: {error}"))?;
    make_devices(&tree, sandbox, start)?;
    for mount in &start.mounts {
        bind_volume(&tree, mount)?;
    }
    if start.read_only_root {
        remount_read_only(&root).map_err(|error| format!("make the root read-only: {error}"))?;
    }
    std::env::set_current_dir(&root).map_err(|error| format!("enter {}: {error}", root.display()))?;
    nix::unistd::pivot_root(".", ".").map_err(|error| format!("pivot_root: {error}"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(|error| format!("leave the machine's root: {error}"))?;
    std::env::set_current_dir("/").map_err(|error| error.to_string())
}

fn mount_process_table(tree: &Tree) -> Result<(), String> {
    let process = tree.folder(Path::new("/proc"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), &process.path(), Some("proc"), flags, NONE)
        .map_err(|error| format!("mount /proc: {error}"))
}

/// A root in memory into which every folder of the image's root is bound: what an ordinary user may have instead of an
/// overlay. New folders can be made on it, and what is bound is written as that user.
fn mount_binds(lower: &Path, directory: &Path) -> Result<PathBuf, String> {
    let root = directory.join("root");
    fs::create_dir_all(&root).map_err(|error| error.to_string())?;
    mount(Some("tmpfs"), &root, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0755"))
        .map_err(|error| format!("mount the pod's root: {error}"))?;
    // One of the folders bound into it is the one that it lies in.
    mount(NONE, &root, NONE, MsFlags::MS_UNBINDABLE, NONE).map_err(|error| error.to_string())?;
    bind_entries(lower, &root, &["proc", "sys", "dev", "run"])?;
    // Mounts of the pod are made below it.
    let run = root.join("run");
    fs::create_dir_all(&run).map_err(|error| error.to_string())?;
    bind_entries(&lower.join("run"), &run, &["muster", "secrets"])?;
    Ok(root)
}

/// Binds every entry of a folder into another folder, besides those with these names.
fn bind_entries(from: &Path, to: &Path, without: &[&str]) -> Result<(), String> {
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let (source, name) = (entry.path(), entry.file_name());
        let target = to.join(&name);
        let Ok(kind) = entry.file_type() else { continue };
        if without.iter().any(|other| name == **other) {
            continue;
        }
        let made = if kind.is_symlink() {
            fs::read_link(&source).and_then(|link| std::os::unix::fs::symlink(link, &target))
        } else if kind.is_dir() {
            fs::create_dir(&target)
        } else {
            fs::write(&target, "")
        };
        made.map_err(|error| error.to_string())?;
        // What cannot be shown is no reason not to run: most containers never look there.
        if !kind.is_symlink() {
            let _ = bind(&source, &target, true);
        }
    }
    Ok(())
}

fn mount_overlay(lower: &Path, directory: &Path) -> Result<PathBuf, String> {
    let (upper, work, root) = (directory.join("upper"), directory.join("work"), directory.join("root"));
    for folder in [&upper, &work, &root] {
        fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    }
    let mut options = OsString::from("lowerdir=");
    for (key, path) in [("", lower), (",upperdir=", upper.as_path()), (",workdir=", work.as_path())] {
        options.push(key);
        let mut escaped = Vec::new();
        for byte in path.as_os_str().as_bytes() {
            if matches!(byte, b',' | b':' | b'\\') {
                escaped.push(b'\\');
            }
            escaped.push(*byte);
        }
        options.push(OsString::from_vec(escaped));
    }
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_os_str()))
        .map_err(|error| format!("mount an overlay over {}: {error}", lower.display()))?;
    Ok(root)
}

fn bind(source: &Path, target: &Path, recursive: bool) -> nix::Result<()> {
    let flags = if recursive { MsFlags::MS_BIND | MsFlags::MS_REC } else { MsFlags::MS_BIND };
    mount(Some(source), target, NONE, flags, NONE)
}

fn remount_read_only(target: &Path) -> nix::Result<()> {
    // In a user namespace a mount must keep what the machine restricts it by.
    let kept = rustix::fs::statvfs(target).map_or(StatVfsMountFlags::empty(), |found| found.f_flag);
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (has, flag) in [
        (StatVfsMountFlags::NOSUID, MsFlags::MS_NOSUID),
        (StatVfsMountFlags::NODEV, MsFlags::MS_NODEV),
        (StatVfsMountFlags::NOEXEC, MsFlags::MS_NOEXEC),
        (StatVfsMountFlags::NOATIME, MsFlags::MS_NOATIME),
    ] {
        flags.set(flag, kept.contains(has));
    }
    mount(NONE, target, NONE, flags, NONE)
}

/// Mount points of disks below `/`, outermost first; what is inside the state folder stays hidden.
fn disks_below_root(hidden: &Path) -> Vec<PathBuf> {
    let Ok(table) = fs::read_to_string("/proc/self/mountinfo") else { return Vec::new() };
    let mut paths: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let kind = right.split(' ').next()?;
            let path = Path::new(left.split(' ').nth(4)?);
            let shown =
                DISK_FILE_SYSTEMS.contains(&kind) && path != Path::new("/") && !path.starts_with(hidden);
            (shown && !path.starts_with("/boot") && !path.starts_with("/proc")).then(|| path.to_owned())
        })
        .collect();
    paths.sort();
    paths.dedup();
    let outermost: Vec<PathBuf> = paths
        .iter()
        .filter(|path| !paths.iter().any(|other| *path != other && path.starts_with(other)))
        .cloned()
        .collect();
    outermost
}

fn make_devices(tree: &Tree, sandbox: &Sandbox, start: &ContainerStart) -> Result<(), String> {
    let target = tree.folder(Path::new("/dev"))?;
    mount(Some("tmpfs"), &target.path(), Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=0755"))
        .map_err(|error| format!("mount /dev: {error}"))?;
    // The descriptor shows what lies below the mount; look again.
    let mounted = tree.folder(Path::new("/dev"))?;
    let umask = rustix::process::umask(Mode::empty());
    let made = fill_devices(&mounted.path(), sandbox, start);
    rustix::process::umask(umask);
    made
}

fn fill_devices(devices: &Path, sandbox: &Sandbox, start: &ContainerStart) -> Result<(), String> {
    for device in DEVICES.iter().map(Path::new).chain(start.devices.iter().map(PathBuf::as_path)) {
        let Ok(metadata) = fs::metadata(device) else { continue };
        let Ok(name) = device.strip_prefix("/dev") else { continue };
        let target = devices.join(name);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(|error| error.to_string())?;
        }
        if metadata.file_type().is_char_device() {
            let mode = DeviceMode::from_bits_truncate(0o666);
            let failed = |error: String| format!("make device {}: {error}", device.display());
            if sandbox.user {
                // Nobody but the machine's root makes devices.
                fs::write(&target, "").map_err(|error| failed(error.to_string()))?;
                bind(device, &target, false).map_err(|error| failed(error.to_string()))?;
            } else {
                mknod(&target, SFlag::S_IFCHR, mode, metadata.rdev())
                    .map_err(|error| failed(error.to_string()))?;
            }
        }
    }
    for (name, link) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        std::os::unix::fs::symlink(link, devices.join(name))
            .map_err(|error| format!("link /dev/{name}: {error}"))?;
    }
    let (terminals, memory) = (devices.join("pts"), devices.join("shm"));
    for folder in [&terminals, &memory] {
        fs::create_dir(folder).map_err(|error| error.to_string())?;
    }
    let options = Some("newinstance,ptmxmode=0666,mode=0620");
    // Only programs that open a terminal of their own miss it.
    let _ =
        mount(Some("devpts"), &terminals, Some("devpts"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, options);
    bind(&sandbox.directory.join("shm"), &memory, false).map_err(|error| format!("bind /dev/shm: {error}"))
}

fn bind_volume(tree: &Tree, volume: &BindMount) -> Result<(), String> {
    let source = Source::open(volume)?;
    let target = if source.is_folder { tree.folder(&volume.target)? } else { tree.file(&volume.target)? };
    let failed = |error: nix::Error| {
        format!("mount {} at {}: {error}", volume.source.display(), volume.target.display())
    };
    bind(&source.path(), &target.path(), true).map_err(failed)?;
    if volume.read_only {
        let mounted =
            if source.is_folder { tree.folder(&volume.target)? } else { tree.file(&volume.target)? };
        remount_read_only(&mounted.path()).map_err(failed)?;
    }
    Ok(())
}

/// The source of a volume, opened so that no symbolic link of the volume leads out of it.
struct Source {
    descriptor: OwnedFd,
    is_folder: bool,
}

impl Source {
    fn open(volume: &BindMount) -> Result<Self, String> {
        let failed = |error: io::Error| {
            let sub_path = volume.sub_path.as_deref().unwrap_or(Path::new("")).display();
            format!("open volume {} {sub_path}: {error}", volume.source.display())
        };
        let outer = openat(CWD, &volume.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failed(error.into()))?;
        let descriptor = match &volume.sub_path {
            None => outer,
            Some(path) => {
                let inside = Tree { root: outer, create: Create::Anywhere };
                match openat2(
                    &inside.root,
                    path,
                    OFlags::PATH | OFlags::CLOEXEC,
                    Mode::empty(),
                    ResolveFlags::BENEATH,
                ) {
                    Ok(found) => found,
                    Err(rustix::io::Errno::NOENT) => inside.folder(path)?.0,
                    Err(error) => return Err(failed(error.into())),
                }
            }
        };
        let status = fstat(&descriptor).map_err(|error| failed(error.into()))?;
        let is_folder = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
        Ok(Self { descriptor, is_folder })
    }

    fn path(&self) -> PathBuf {
        descriptor_path(&self.descriptor)
    }
}

fn descriptor_path(descriptor: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}

/// A folder of the container, held open.
struct Place(OwnedFd);

impl Place {
    fn path(&self) -> PathBuf {
        descriptor_path(&self.0)
    }
}

/// Where missing files and folders may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Create {
    Anywhere,
    /// On the root's own file system, but not on what is mounted into it.
    OnRoot,
    Nowhere,
}

/// A file tree in which paths are followed as if its root were `/`: links cannot lead out of it.
struct Tree {
    root: OwnedFd,
    create: Create,
}

impl Tree {
    fn open(root: &Path, create: Create) -> Result<Self, String> {
        let root = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| format!("open {}: {error}", root.display()))?;
        Ok(Self { root, create })
    }

    fn lookup(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
    }

    /// Opens a folder and makes what is missing of it.
    fn folder(&self, path: &Path) -> Result<Place, String> {
        match self.lookup(path, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(found) => return Ok(Place(found)),
            Err(rustix::io::Errno::NOENT) => self.refuse_if_fixed(path)?,
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
        let mut current = PathBuf::from("/");
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            let parent = self.lookup(&current, OFlags::PATH | OFlags::DIRECTORY);
            let parent = parent.map_err(|error| format!("{}: {error}", current.display()))?;
            current.push(name);
            if self.lookup(&current, OFlags::PATH | OFlags::DIRECTORY).is_ok() {
                continue;
            }
            self.refuse_if_mounted(&parent, path)?;
            match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(format!("make folder {}: {error}", current.display())),
            }
        }
        let found = self.lookup(path, OFlags::PATH | OFlags::DIRECTORY);
        found.map(Place).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Opens a file and makes an empty one where it is missing.
    fn file(&self, path: &Path) -> Result<Place, String> {
        match self.lookup(path, OFlags::PATH) {
            Ok(found) => return Ok(Place(found)),
            Err(rustix::io::Errno::NOENT) => self.refuse_if_fixed(path)?,
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(format!("{} cannot be a file", path.display()));
        };
        let parent = self.folder(parent)?;
        self.refuse_if_mounted(&parent.0, path)?;
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(parent.0.as_fd(), name, flags, Mode::from_raw_mode(0o644))
            .map_err(|error| format!("make file {}: {error}", path.display()))?;
        let found = self.lookup(path, OFlags::PATH);
        found.map(Place).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn refuse_if_fixed(&self, path: &Path) -> Result<(), String> {
        if self.create == Create::Nowhere { Err(cannot_be_made(path)) } else { Ok(()) }
    }

    /// What is made in a mounted folder would be made on the machine.
    fn refuse_if_mounted(&self, parent: &OwnedFd, path: &Path) -> Result<(), String> {
        let device = |descriptor: &OwnedFd| fstat(descriptor).map(|found| found.st_dev);
        let is_own = || matches!((device(&self.root), device(parent)), (Ok(own), Ok(other)) if own == other);
        if self.create == Create::OnRoot && !path.starts_with("/dev") && !is_own() {
            Err(cannot_be_made(path))
        } else {
            Ok(())
        }
    }
}

fn cannot_be_made(path: &Path) -> String {
    let path = path.display();
    format!("{path} does not exist on this machine, and without an overlay it cannot be made for the pod")
}
