//! Forking without a libc wrapper, because pods need `clone` flags and a pidfd in one step.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::Pid;

/// Proof that this process has one thread, so that a fork copies no lock held by another thread.
///
/// A fork hands the proof on: the child of a single-threaded process has one thread as well.
#[derive(Debug)]
pub(crate) struct SingleThreaded(());

impl SingleThreaded {
    /// Looks at the kernel's own count of threads.
    pub(crate) fn prove() -> io::Result<Self> {
        let threads = fs_err::read_dir("/proc/self/task")?.count();
        if threads == 1 {
            return Ok(Self(()));
        }
        Err(io::Error::other(format!("cannot fork safely: this process has {threads} threads")))
    }

    /// Forks with the namespaces in `flags`.
    #[expect(clippy::unused_self, reason = "the value is the proof that no other thread exists")]
    pub(crate) fn fork(&self, flags: CloneFlags) -> io::Result<Forked> {
        let mut pidfd: libc::c_int = -1;
        let flags = flags.bits() as libc::c_ulong | (libc::CLONE_PIDFD | libc::SIGCHLD) as libc::c_ulong;
        // SAFETY: a null stack makes `clone` behave as `fork`: the child gets a copy of this stack and returns
        // here. `self` proves that no other thread exists whose locks the copy could hold. The kernel writes
        // one int through the pointer, which outlives the call.
        let pid = unsafe {
            libc::syscall(
                libc::SYS_clone,
                flags,
                std::ptr::null_mut::<libc::c_void>(),
                &raw mut pidfd,
                std::ptr::null_mut::<libc::c_int>(),
                0_usize,
            )
        };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => Ok(Forked::Child),
            pid => {
                // SAFETY: the kernel has just made this descriptor for us (CLONE_PIDFD); nobody else owns it.
                let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
                Ok(Forked::Parent { pid: Pid::from_raw(pid as i32), pidfd })
            }
        }
    }
}

/// Which side of a fork we are on.
#[derive(Debug)]
pub(crate) enum Forked {
    /// The process that forked.
    Parent {
        /// The child in this process's PID namespace.
        pid: Pid,
        /// The child, safe against reuse of its number.
        pidfd: OwnedFd,
    },
    /// The new process.
    Child,
}

/// Gives the signals back their default meaning before a program of the user starts: the Rust runtime ignores
/// SIGPIPE and we block signals to read them in order.
pub(crate) fn reset_signals() -> io::Result<()> {
    for signal in Signal::iterator() {
        if matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            continue;
        }
        // SAFETY: SIG_DFL installs no handler, so no code can run in a signal context.
        unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) }?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}
