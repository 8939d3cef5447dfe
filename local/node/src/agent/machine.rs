//! Facts about this machine.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use fs_err as fs;

/// Total memory in bytes.
pub(super) fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Processor cores.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// One line of a file of `/proc` or `/etc`, or nothing.
pub(super) fn line_of(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Listens on a unix socket whose path may be longer than the 107 bytes that the kernel takes.
pub(super) fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let folder = fs::File::open(path.parent().unwrap_or(Path::new(".")))?;
    let name = path.file_name().ok_or_else(|| io::Error::other("the socket's path has no file name"))?;
    let listener =
        UnixListener::bind(Path::new(&format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
