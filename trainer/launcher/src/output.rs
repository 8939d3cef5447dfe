//! Carries the output of workers to that of the launcher, a thread a stream.
//!
//! Who reads the launcher's output slowly slows the workers, as if they wrote to him themselves; nothing is dropped. Where
//! he is gone, the workers' own pipe closes, so that they learn it as if they wrote to him themselves.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::lines::{Framing, Tail};

/// A reader that is ready for something is ready for so much (PIPE_BUF).
const PIECE: usize = 4096;

/// How long to wait from now until `deadline`; without one, for ever.
pub(crate) fn until(deadline: Option<Instant>) -> Option<Timespec> {
    let left = deadline?.saturating_duration_since(Instant::now());
    // One millisecond more, or the last wait ends just before it.
    (left + Duration::from_millis(u64::from(!left.is_zero()))).try_into().ok()
}

/// A stream of the launcher that all workers share.
#[derive(Debug)]
pub(crate) struct Sink {
    name: &'static str,
    stream: BorrowedFd<'static>,
    /// Held while whole lines are written.
    state: Mutex<SinkState>,
    written: AtomicU64,
}

#[derive(Debug, Default)]
struct SinkState {
    /// Whether it was told that nothing can be written.
    is_failure_told: bool,
    /// Whether the last line has not ended.
    is_within_line: bool,
}

/// Nobody reads any more.
#[derive(Debug)]
struct Closed;

impl Sink {
    /// The standard output of this process.
    pub(crate) fn stdout() -> Arc<Self> {
        Self::new("standard output", rustix::stdio::stdout())
    }

    /// The standard error of this process.
    pub(crate) fn stderr() -> Arc<Self> {
        Self::new("standard error", rustix::stdio::stderr())
    }

    fn new(name: &'static str, stream: BorrowedFd<'static>) -> Arc<Self> {
        Arc::new(Self { name, stream, state: Mutex::default(), written: AtomicU64::new(0) })
    }

    /// Bytes that were written so far.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Writes all, however long it takes. A failure is told once on `notes`; what could not be written is lost.
    fn write(&self, bytes: &[u8], notes: &Self) -> Result<(), Closed> {
        let Some(last) = bytes.last() else { return Ok(()) };
        let mut state = self.state.lock();
        match self.write_until(bytes, None) {
            Ok(()) => *state = SinkState { is_failure_told: false, is_within_line: *last != b'\n' },
            Err(Errno::PIPE) => return Err(Closed),
            Err(error) => {
                if !std::mem::replace(&mut state.is_failure_told, true) && self.name != notes.name {
                    notes.note(&format!(
                        "cannot write to {}: {}; what the workers print is lost meanwhile",
                        self.name,
                        io::Error::from(error)
                    ));
                }
            }
        }
        Ok(())
    }

    /// Says something of the launcher itself, unless nobody takes it for a while.
    pub(crate) fn note(&self, text: &str) {
        let wait = Duration::from_secs(5);
        let deadline = Instant::now() + wait;
        if let Some(mut state) = self.state.try_lock_for(wait) {
            let start = if std::mem::take(&mut state.is_within_line) { "\n" } else { "" };
            // There is no place left to tell that it failed.
            let _ =
                self.write_until(format!("{start}muster exec-worker: {text}\n").as_bytes(), Some(deadline));
        }
    }

    fn write_until(&self, mut bytes: &[u8], deadline: Option<Instant>) -> Result<(), Errno> {
        while !bytes.is_empty() {
            let piece = if deadline.is_some() { &bytes[..bytes.len().min(PIECE)] } else { bytes };
            if deadline.is_some() {
                self.wait_ready(deadline)?;
            }
            match rustix::io::write(self.stream, piece) {
                Ok(count) => {
                    self.written.fetch_add(count as u64, Ordering::Relaxed);
                    bytes = &bytes[count..];
                }
                Err(Errno::AGAIN) => self.wait_ready(deadline)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn wait_ready(&self, deadline: Option<Instant>) -> Result<(), Errno> {
        match poll(&mut [PollFd::new(&self.stream, PollFlags::OUT)], until(deadline).as_ref()) {
            Ok(0) => Err(Errno::TIMEDOUT),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Both streams of the launcher.
#[derive(Clone, Debug)]
pub(crate) struct Sinks {
    pub(crate) stdout: Arc<Sink>,
    pub(crate) stderr: Arc<Sink>,
}

/// An event for other threads, told by a descriptor that polls as readable.
#[derive(Clone, Debug)]
pub(crate) struct Event(Arc<OwnedFd>);

impl Event {
    /// An event that has not happened.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Says that it happened, once more.
    pub(crate) fn tell(&self) {
        // Fails only if nobody took 2⁶⁴ - 2 of them.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// How often it happened since it was asked for last.
    pub(crate) fn take(&self) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(&self.0, &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(_) => 0,
        }
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One stream of a worker.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Where the worker's output comes from; does not block.
    pub(crate) pipe: OwnedFd,
    pub(crate) framing: Framing,
    /// The last lines, where they are wanted.
    pub(crate) tail: Option<Arc<Mutex<Tail>>>,
    pub(crate) sink: Arc<Sink>,
    /// Where failures of `sink` are told.
    pub(crate) notes: Arc<Sink>,
}

impl Stream {
    /// Carries everything over until the pipe has no writer, or until `ended` happened and the pipe is empty: what the
    /// worker started may hold the pipe longer than it lived.
    pub(crate) fn carry(mut self, ended: &Event) {
        let (mut bytes, mut ready) = (vec![0; 64 * 1024], Vec::new());
        let mut has_ended = false;
        loop {
            match rustix::io::read(&self.pipe, &mut *bytes) {
                Ok(0) => break,
                Ok(count) => {
                    if let Some(tail) = &self.tail {
                        tail.lock().push(&bytes[..count]);
                    }
                    ready.clear();
                    self.framing.push(&bytes[..count], &mut ready);
                    if self.sink.write(&ready, &self.notes).is_err() {
                        return;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if has_ended => break,
                Err(Errno::AGAIN) => {
                    let mut ready =
                        [PollFd::new(&self.pipe, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
                    match poll(&mut ready, None) {
                        // What the pipe holds by now is all that the worker wrote.
                        Ok(_) => has_ended = !ready[1].revents().is_empty(),
                        Err(Errno::INTR) => {}
                        Err(_) => break,
                    }
                }
                Err(_) => break,
            }
        }
        ready.clear();
        self.framing.finish(&mut ready);
        // The reader may have gone just now, and there is nothing left to say.
        let _ = self.sink.write(&ready, &self.notes);
    }
}
