//! Signals that ask the process to stop, looked at between steps.

use std::io::Write;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::Error;

/// Milliseconds between two looks whether the work is done.
const LOOK: u8 = 5;

/// Holds SIGTERM and SIGINT back so that they are seen at a step boundary.
#[derive(Debug)]
pub(crate) struct Interrupt {
    signals: SignalFd,
    seen: Option<Signal>,
}

/// Says that work is done, also if it panics.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
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

    /// Does what cannot look at signals in between: one ends the process, if the work is not done so long afterwards.
    /// Where the process loses nothing by that, `grace` is zero.
    pub(crate) fn ending_after<R>(&mut self, grace: Duration, work: impl FnOnce() -> R) -> R {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut since = None;
                while !done.load(Ordering::Acquire) {
                    if let Some(signal) = self.signal()
                        && since.get_or_insert_with(Instant::now).elapsed() >= grace
                    {
                        let error = Error::Interrupted { signal };
                        // Standard error is the place for the cause; nothing is left to do if it is closed.
                        let _ = writeln!(std::io::stderr(), "muster-train: {error}");
                        std::process::exit(i32::from(error.exit_code()));
                    }
                    let fd = PollFd::new(self.signals.as_fd(), PollFlags::POLLIN);
                    // It returns early for a signal; a failure is as good as the end of the pause.
                    let _ = poll(&mut [fd], PollTimeout::from(LOOK));
                }
            });
            let _done = OnDrop(&done);
            work()
        })
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
