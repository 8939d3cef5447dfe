//! A process that outlives the launcher by a moment, to end what it leaves behind if it is killed.
//!
//! Workers die with the launcher by themselves (see [`crate::child`]), but not what they have started, such as the
//! processes that load their data. The warden hears of each process group; when the launcher's end of their pipe closes
//! for whatever reason, it kills those that are left.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, PipeWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};

use crate::child::CHILD_COMMAND;
use crate::output::until;
use crate::worker::OWN_PROGRAM;

/// The word after [`CHILD_COMMAND`] that makes a warden and not a worker.
pub(crate) const WARDEN_WORD: &str = "warden";

/// It has next to nothing to do.
const LONGEST_END: Duration = Duration::from_secs(1);

/// The launcher's side. Dropped, it lets the warden end.
#[derive(Debug)]
pub(crate) struct Warden {
    /// `None` only while it is dropped.
    pipe: Option<PipeWriter>,
    process: OwnedFd,
}

impl Warden {
    /// Starts one, which removes `folder` at the end if it is still there.
    pub(crate) fn start(folder: Option<&Path>) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(OWN_PROGRAM);
        command.arg0("muster").args([CHILD_COMMAND, WARDEN_WORD]).args(folder);
        // It holds none of the launcher's streams, and is out of the way of a terminal's signals.
        command.stdin(reader).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let child = command.spawn()?;
        let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        Ok(Self { pipe: Some(writer), process })
    }

    /// From now on this group is to be killed.
    pub(crate) fn add(&self, group: Pid) {
        self.tell('+', group);
    }

    /// This group was killed; another may get its number.
    pub(crate) fn remove(&self, group: Pid) {
        self.tell('-', group);
    }

    fn tell(&self, what: char, group: Pid) {
        if let Some(mut pipe) = self.pipe.as_ref() {
            // If somebody killed the warden, workers still die with the launcher.
            let _ = pipe.write_all(format!("{what}{}\n", group.as_raw_pid()).as_bytes());
        }
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        self.pipe = None;
        let deadline = Some(Instant::now() + LONGEST_END);
        // Whether it ended or not, there is nothing more to do; its parent would be the next to wait for it.
        let _ = poll(&mut [PollFd::new(&self.process, PollFlags::IN)], until(deadline).as_ref());
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let _ = waitid(WaitId::PidFd(self.process.as_fd()), ended);
    }
}

/// The warden itself: hears of groups on its standard input until that ends.
pub(crate) fn run(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    // Lists of processes would show the end of the path it was started by.
    let _ = rustix::thread::set_name(c"muster-warden");
    let left = groups(BufReader::new(io::stdin().lock()));
    for group in left.into_iter().filter_map(Pid::from_raw) {
        // One that has ended is what was wanted.
        let _ = kill_process_group(group, Signal::KILL);
    }
    if let Some(folder) = words.next().map(PathBuf::from) {
        // The launcher removes it unless it was killed.
        let _ = fs::remove_dir_all(folder);
    }
    ExitCode::SUCCESS
}

/// The groups that were added and not removed.
fn groups(lines: impl BufRead) -> BTreeSet<i32> {
    let mut groups = BTreeSet::new();
    for line in lines.lines().map_while(Result::ok) {
        let mut letters = line.chars();
        let what = letters.next();
        // A group of 0 or 1 would be something else to the kernel.
        let Some(group) = letters.as_str().parse().ok().filter(|group| *group > 1) else { continue };
        match what {
            Some('+') => groups.insert(group),
            Some('-') => groups.remove(&group),
            _ => false,
        };
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_groups_that_are_left_are_killed() {
        let text = "+100\n+200\n-100\n+300\n+1\n+0\n+-5\n+\n\nx\n-400\n+3";
        assert_eq!(groups(text.as_bytes()), BTreeSet::from([3, 200, 300]));
    }
}
