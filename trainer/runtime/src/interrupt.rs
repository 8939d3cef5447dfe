//! Signals that ask the process to stop, looked at between steps.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::Error;

/// Holds SIGTERM and SIGINT back so that they are seen at a step boundary.
#[derive(Debug)]
pub(crate) struct Interrupt {
    signals: SignalFd,
    seen: Option<Signal>,
}

impl Interrupt {
    /// Must run before other threads start: they inherit the blocked signals.
    pub(crate) fn block() -> Result<Self, Error> {
        let setup =
            |error: nix::Error| Error::Setup { action: "receive signals", message: error.to_string() };
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        set.add(Signal::SIGINT);
        set.thread_block().map_err(setup)?;
        let signals =
            SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(setup)?;
        Ok(Self { signals, seen: None })
    }

    /// The signal that asked this process to stop, if one did.
    pub(crate) fn signal(&mut self) -> Option<Signal> {
        if self.seen.is_none()
            && let Ok(Some(info)) = self.signals.read_signal()
        {
            self.seen = Signal::try_from(info.ssi_signo.cast_signed()).ok();
        }
        self.seen
    }
}
