//! Signals to the launcher, taken in order instead of by handlers.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What workers get as well.
const FORWARDED: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A child ended, perhaps one that was adopted.
    Reap,
    /// Workers get the signal.
    Forward(Signal),
    /// Workers get the signal, and have some time to end.
    Stop(Signal),
}

impl Request {
    /// The signal, if it asks for the end.
    pub(crate) fn stop(self) -> Option<Signal> {
        match self {
            Self::Stop(signal) => Some(signal),
            Self::Reap | Self::Forward(_) => None,
        }
    }
}

fn held_back() -> SigSet {
    FORWARDED.into_iter().chain([Signal::SIGCHLD]).collect()
}

/// Lets this process have them, which it inherits as held back from the launcher.
pub(crate) fn release() -> io::Result<()> {
    Ok(held_back().thread_unblock()?)
}

/// The signals that this process is sent.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Holds them back. Must run before other threads start: they inherit that.
    pub(crate) fn block() -> io::Result<Self> {
        let set = held_back();
        set.thread_block()?;
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// The next one that came, if any.
    pub(crate) fn next(&self) -> Option<Request> {
        let information = self.0.read_signal().ok().flatten()?;
        let signal = Signal::try_from(information.ssi_signo.cast_signed()).ok()?;
        Some(match signal {
            Signal::SIGCHLD => Request::Reap,
            Signal::SIGTERM | Signal::SIGINT => Request::Stop(signal),
            other => Request::Forward(other),
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
