//! A worker's process: started, watched by its pidfd, ended with all that it started.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use nix::sys::signal::Signal;
use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::process::{
    Pid, PidfdFlags, WaitId, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal, waitid,
};

use crate::environment;
use crate::lines::{Framing, Tail};
use crate::output::{Event, Sinks, Stream};
use crate::warden::Warden;

/// The program of this process, even if its file was replaced.
pub(crate) const OWN_PROGRAM: &str = "/proc/self/exe";

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Code(u8),
    Signal {
        number: i32,
        /// Whether it left a core dump.
        dumped: bool,
    },
}

impl End {
    pub(crate) fn is_success(self) -> bool {
        self == Self::Code(0)
    }

    pub(crate) fn is_by(self, signal: Signal) -> bool {
        matches!(self, Self::Signal { number, .. } if number == signal as i32)
    }

    /// What a shell would exit with.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal { number, .. } => 128 | u8::try_from(number).unwrap_or_default(),
        }
    }

    /// The signal, by name where it has one.
    pub(crate) fn signal(self) -> Option<String> {
        let Self::Signal { number, .. } = self else { return None };
        Some(
            Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.to_string()),
        )
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.signal()) {
            (Self::Code(code), _) => write!(f, "exit code {code}"),
            (Self::Signal { dumped, .. }, name) => {
                let dumped = if *dumped { " (core dumped)" } else { "" };
                write!(f, "killed by {}{dumped}", name.unwrap_or_default())
            }
        }
    }
}

/// What a worker is started with.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) local_rank: usize,
    /// Words for the own program, which then becomes the worker.
    pub(crate) words: Vec<std::ffi::OsString>,
    pub(crate) variables: Vec<(&'static str, String)>,
    /// Where the worker may describe its failure.
    pub(crate) error_file: Option<PathBuf>,
    /// One for each stream.
    pub(crate) framing: [Framing; 2],
    /// Last lines of standard error that are kept.
    pub(crate) last_lines: usize,
}

/// A worker that was started. Dropped before its end, it is killed.
#[derive(Debug)]
pub(crate) struct Worker<'a> {
    warden: &'a Warden,
    pub(crate) local_rank: usize,
    pub(crate) started: Instant,
    pub(crate) error_file: Option<PathBuf>,
    pub(crate) tail: Arc<Mutex<Tail>>,
    process: Pid,
    handle: OwnedFd,
    ended: Event,
    is_alive: bool,
}

impl<'a> Worker<'a> {
    /// Starts it in a process group of its own. `done` is told once for each of its two streams, when all of it has been
    /// passed on. Must be called by the thread that lives as long as the launcher: the worker dies with that.
    pub(crate) fn start(start: Start, sinks: &Sinks, warden: &'a Warden, done: &Event) -> io::Result<Self> {
        let ended = Event::new()?;
        let mut command = Command::new(OWN_PROGRAM);
        command.arg0("muster").args(start.words).envs(start.variables).process_group(0);
        for name in environment::NOT_FOR_WORKERS {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let process = Pid::from_child(&child);
        let handle = match pidfd_open(process, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error.into());
            }
        };
        warden.add(process);
        let tail = Arc::new(Mutex::new(Tail::new(start.last_lines)));
        let [out_framing, err_framing] = start.framing;
        let (out, err) = (child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from));
        let worker = Self {
            warden,
            local_rank: start.local_rank,
            started: Instant::now(),
            error_file: start.error_file,
            tail: tail.clone(),
            process,
            handle,
            ended,
            is_alive: true,
        };
        let streams = [
            (out, out_framing, None, sinks.stdout.clone()),
            (err, err_framing, Some(tail), sinks.stderr.clone()),
        ];
        for (pipe, framing, tail, sink) in streams {
            let pipe = pipe.ok_or_else(|| io::Error::other("a pipe is missing"))?;
            rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
            let stream = Stream { pipe, framing, tail, sink, notes: sinks.stderr.clone() };
            let (ended, done) = (worker.ended.clone(), done.clone());
            std::thread::Builder::new().name(format!("output {}", start.local_rank)).spawn(move || {
                stream.carry(&ended);
                done.tell();
            })?;
        }
        Ok(worker)
    }

    /// Until its end was collected.
    pub(crate) fn is_alive(&self) -> bool {
        self.is_alive
    }

    /// Whether this is its process.
    pub(crate) fn is(&self, process: i32) -> bool {
        self.process.as_raw_pid() == process
    }

    /// Sends its process a signal; what it started may have other uses for it.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.is_alive
            && let Some(signal) = rustix::process::Signal::from_named_raw(signal as i32)
        {
            // It may have ended just now.
            let _ = pidfd_send_signal(&self.handle, signal);
        }
    }

    /// Kills its process group.
    pub(crate) fn kill(&self) {
        if self.is_alive {
            // Until it was waited for, nobody else can have its number.
            let _ = kill_process_group(self.process, rustix::process::Signal::KILL);
        }
    }

    /// Waits for its end, which its descriptor has told, and kills what it leaves behind.
    pub(crate) fn collect(&mut self) -> io::Result<End> {
        self.kill();
        self.warden.remove(self.process);
        let status = loop {
            match waitid(WaitId::PidFd(self.handle.as_fd()), WaitIdOptions::EXITED) {
                Ok(Some(status)) => break status,
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        self.is_alive = false;
        self.ended.tell();
        Ok(match (status.exit_status(), status.terminating_signal()) {
            (_, Some(number)) => End::Signal { number, dumped: status.dumped() },
            (code, None) => End::Code(code.unwrap_or_default() as u8),
        })
    }
}

impl AsFd for Worker<'_> {
    /// Readable once the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        if self.is_alive {
            // There is nobody left to tell.
            let _ = self.collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_as_shells_do() {
        let killed = End::Signal { number: 9, dumped: false };
        assert_eq!((killed.to_string(), killed.exit_code()), ("killed by SIGKILL".into(), 137));
        assert!(killed.is_by(Signal::SIGKILL) && !killed.is_by(Signal::SIGTERM));
        let crashed = End::Signal { number: 11, dumped: true };
        assert_eq!(crashed.to_string(), "killed by SIGSEGV (core dumped)");
        let unnamed = End::Signal { number: 40, dumped: false };
        assert_eq!((unnamed.to_string(), unnamed.exit_code()), ("killed by signal 40".into(), 168));
        assert_eq!((End::Code(3).to_string(), End::Code(3).exit_code()), ("exit code 3".into(), 3));
        assert!(End::Code(0).is_success());
    }
}
