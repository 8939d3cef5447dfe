//! The state of a communicator that its calls, waits and aborters share.
//!
//! NCCL's communicators must not be used by two threads at once, and aborting one frees it. So every use happens under
//! a lock, in which the handle is there or gone; no use waits for other ranks, since communicators here do not block;
//! and waits look at the state again and again, with the lock free in between.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cudarc::nccl::sys::ncclComm_t;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::Error;
use crate::library::{Functions, Nccl};
use crate::options::Options;
use crate::queue::{DeviceError, Queue};
use crate::status::{IN_PROGRESS, SUCCESS, is_accepted};

/// Looks that follow each other at once: a small collective takes some microseconds.
const EAGER_LOOKS: u32 = 200;
const SHORTEST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// What is shared.
#[derive(Debug)]
pub(crate) struct Group<Q: Queue> {
    pub(crate) nccl: Nccl,
    pub(crate) queue: Q,
    pub(crate) options: Options,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    failure: Option<Failure>,
}

#[derive(Debug)]
enum Phase {
    Open(Handle),
    /// Somebody ends it.
    Ending,
    Ended,
}

/// Why a group has ended before its time.
#[derive(Debug)]
pub(crate) enum Failure {
    Aborted(String),
    Broken(String),
}

/// A live communicator of NCCL.
#[derive(Debug)]
struct Handle(ncclComm_t);

// SAFETY: NCCL allows any thread to use a communicator, one at a time.
unsafe impl Send for Handle {}

impl<Q: Queue> Group<Q> {
    /// Takes over a communicator that the library has made or is making.
    pub(crate) fn new(nccl: &Nccl, queue: &Q, options: &Options, communicator: ncclComm_t) -> Arc<Self> {
        let state = State { phase: Phase::Open(Handle(communicator)), failure: None };
        Arc::new(Self {
            nccl: nccl.clone(),
            queue: queue.clone(),
            options: options.clone(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    /// Makes a call of the library that returns at once, and gives back whether it was accepted. `call` names it.
    pub(crate) fn call(
        self: &Arc<Self>,
        call: &dyn ToString,
        work: impl FnOnce(&Functions, ncclComm_t) -> c_int,
    ) -> Result<(), Error> {
        let failed = {
            let state = self.state.lock();
            let communicator = self.communicator(&state)?;
            let code = work(self.nccl.functions(), communicator);
            if is_accepted(code) {
                return Ok(());
            }
            self.nccl_error(call, code, communicator)
        };
        Err(self.break_with(failed))
    }

    /// Waits until the library has done what it was called for (which for a collective means that the device has
    /// it). `None` when it takes longer than `patience`.
    pub(crate) fn settle(
        self: &Arc<Self>,
        call: &dyn ToString,
        patience: Duration,
    ) -> Result<Option<()>, Error> {
        self.look_again(call, patience, true, || Ok(Some(())))
    }

    /// Looks at something until it has an answer, and at the communicator. `None` when there is no answer within
    /// `patience`. Ends when the group is ended.
    pub(crate) fn watch<T>(
        self: &Arc<Self>,
        call: &dyn ToString,
        patience: Duration,
        look: impl FnMut() -> Result<Option<T>, DeviceError>,
    ) -> Result<Option<T>, Error> {
        self.look_again(call, patience, false, look)
    }

    fn look_again<T>(
        self: &Arc<Self>,
        call: &dyn ToString,
        patience: Duration,
        must_settle: bool,
        mut look: impl FnMut() -> Result<Option<T>, DeviceError>,
    ) -> Result<Option<T>, Error> {
        let began = Instant::now();
        let mut looks = 0;
        let mut pause = SHORTEST_PAUSE;
        let failed = loop {
            let mut state = self.state.lock();
            let communicator = self.communicator(&state)?;
            // Before the communicator, whose error may be why the device is done.
            let seen = look();
            let mut code = SUCCESS;
            // SAFETY: the handle is live while the lock is held; the address is that of a number of ours.
            let answer = unsafe { (self.nccl.functions().async_error)(communicator, &raw mut code) };
            if !is_accepted(answer) || !is_accepted(code) {
                let code = if is_accepted(answer) { code } else { answer };
                break self.nccl_error(call, code, communicator);
            }
            match seen {
                Ok(Some(answer)) if code != IN_PROGRESS || !must_settle => return Ok(Some(answer)),
                Ok(_) => {}
                Err(source) => break self.device_error(call, source),
            }
            if began.elapsed() >= patience {
                return Ok(None);
            }
            looks += 1;
            if looks < EAGER_LOOKS {
                drop(state);
                std::thread::yield_now();
            } else {
                // Whoever ends the group wakes this.
                self.changed.wait_for(&mut state, pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        };
        Err(self.break_with(failed))
    }

    /// Ends the group because of this error, and gives it back.
    pub(crate) fn break_with(self: &Arc<Self>, error: Error) -> Error {
        self.end(Failure::Broken(error.to_string()));
        error
    }

    /// Ends the group on this rank: every wait fails. Returns when the library has let go of it, at the latest after
    /// the deadline for that; says whether it has.
    pub(crate) fn end(self: &Arc<Self>, failure: Failure) -> bool {
        let mut state = self.state.lock();
        let phase = std::mem::replace(&mut state.phase, Phase::Ending);
        let Phase::Open(handle) = phase else {
            state.phase = phase;
            return self.until_ended(state);
        };
        state.failure = Some(failure);
        self.let_go(state, handle, self.nccl.functions().abort)
    }

    /// Gives the communicator back to the library, and waits until that has it, no longer than the deadline for that.
    fn let_go<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State>,
        handle: Handle,
        free: unsafe extern "C" fn(ncclComm_t) -> c_int,
    ) -> bool {
        self.changed.notify_all();
        let handle = Arc::new(Mutex::new(Some(handle)));
        let (group, given) = (Arc::clone(self), Arc::clone(&handle));
        let free_given = move || {
            if let Some(handle) = given.lock().take() {
                group.free(handle, free);
            }
        };
        // On a thread of its own, because the library may take its time.
        if let Err(error) = std::thread::Builder::new().name("muster-nccl-end".into()).spawn(free_given) {
            tracing::warn!(%error, "no thread to end NCCL's communicator on: waiting for it");
            drop(state);
            if let Some(handle) = handle.lock().take() {
                self.free(handle, free);
            }
            state = self.state.lock();
        }
        self.until_ended(state)
    }

    fn until_ended(&self, mut state: MutexGuard<'_, State>) -> bool {
        let deadline = Instant::now() + self.options.abort_deadline;
        while !matches!(state.phase, Phase::Ended) {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                let Options { rank, host, abort_deadline, .. } = &self.options;
                tracing::error!(rank, host, after = ?abort_deadline, "NCCL does not end the group: end the process");
                return matches!(state.phase, Phase::Ended);
            }
        }
        true
    }

    fn free(&self, handle: Handle, free: unsafe extern "C" fn(ncclComm_t) -> c_int) {
        if let Err(error) = self.queue.bind() {
            tracing::warn!(%error, "ending NCCL's communicator without its device");
        }
        // SAFETY: the handle was live, and was taken out of the state, so that nobody else uses it from now on.
        let code = unsafe { free(handle.0) };
        if !is_accepted(code) {
            tracing::warn!(result = self.nccl.describe(code), "NCCL did not end its communicator cleanly");
        }
        self.state.lock().phase = Phase::Ended;
        self.changed.notify_all();
    }

    /// Ends the group in good order: when this rank's work is done, its resources are given back.
    pub(crate) fn close(self: &Arc<Self>) -> Result<(), Error> {
        let call = "close";
        // SAFETY: the handle is live.
        self.call(&call, |functions, communicator| unsafe { (functions.finalize)(communicator) })?;
        if self.settle(&call, self.options.deadline)?.is_none() {
            let Options { rank, host, deadline, .. } = &self.options;
            let cause = format!("the work before the end did not end within {deadline:?}");
            return Err(self.break_with(Error::Failed { rank: *rank, host: host.clone(), cause }));
        }
        let mut state = self.state.lock();
        self.communicator(&state)?;
        let Phase::Open(handle) = std::mem::replace(&mut state.phase, Phase::Ending) else { return Ok(()) };
        if self.let_go(state, handle, self.nccl.functions().destroy) {
            return Ok(());
        }
        let Options { rank, host, abort_deadline, .. } = self.options.clone();
        let cause = format!("NCCL did not let go of it within {abort_deadline:?}");
        Err(Error::Failed { rank, host, cause })
    }

    /// Whether nobody can make calls any more.
    pub(crate) fn is_over(&self) -> bool {
        !matches!(self.state.lock().phase, Phase::Open(_))
    }

    fn communicator(&self, state: &State) -> Result<ncclComm_t, Error> {
        let Options { rank, host, .. } = self.options.clone();
        match (&state.failure, &state.phase) {
            (Some(Failure::Aborted(cause)), _) => Err(Error::Aborted { rank, host, cause: cause.clone() }),
            (Some(Failure::Broken(cause)), _) => Err(Error::Failed { rank, host, cause: cause.clone() }),
            (None, Phase::Open(handle)) => Ok(handle.0),
            (None, _) => Err(Error::Closed { rank, host }),
        }
    }

    fn nccl_error(&self, call: &dyn ToString, code: i32, communicator: ncclComm_t) -> Error {
        let Options { rank, host, .. } = self.options.clone();
        let meaning = self.nccl.describe(code);
        // SAFETY: null, or live as long as the caller holds the lock.
        let detail = unsafe { self.nccl.last_error(communicator) };
        Error::Nccl { rank, host, call: call.to_string(), code, meaning, detail }
    }

    pub(crate) fn device_error(&self, call: &dyn ToString, source: DeviceError) -> Error {
        let Options { rank, host, .. } = self.options.clone();
        Error::Device { rank, host, call: call.to_string(), source }
    }
}
