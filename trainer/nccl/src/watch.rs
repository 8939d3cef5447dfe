//! Ends groups of GPUs when a rank dies.
//!
//! NCCL waits for a rank that is gone until somebody aborts it. The group of processes
//! ([`muster_collectives::Communicator`]) knows at once who is gone, but tells it only in its calls: so a thread keeps
//! making one.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use muster_collectives::{Communicator as Host, Reduction};
use parking_lot::{Condvar, Mutex};

use crate::aborter::Aborter;
use crate::error::Error;

/// From one call of the watching ranks to the next: how much later than the group of processes itself a watching rank
/// may learn of a loss.
const INTERVAL: Duration = Duration::from_millis(50);

/// A thread that watches over the ranks of a group of processes and, when one of them is lost, ends the groups of GPUs
/// that it was told of: their waits fail with [`Error::Aborted`], whose cause names the lost rank and its host.
///
/// Every rank of the group of processes must have one, which needs that group for itself ([`Host::split`] makes another
/// of the same ranks). The watch ends on all ranks when one of them ends its own, since a rank that is done leaves the
/// group.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Host>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_ending: bool,
    aborters: Vec<Aborter>,
    loss: Option<String>,
}

impl Watch {
    /// Begins to watch.
    pub fn start(host: Host, aborters: impl IntoIterator<Item = Aborter>) -> Result<Self, Error> {
        let state = State { aborters: aborters.into_iter().collect(), ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let watching = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("muster-nccl-watch".into())
            .spawn(move || watching.watch(host))
            .map_err(Error::NoThread)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Ends this group too when a rank is lost; at once, if one is.
    pub fn add(&self, aborter: Aborter) {
        let mut state = self.shared.state.lock();
        if let Some(loss) = state.loss.clone() {
            drop(state);
            aborter.abort(loss);
        } else {
            state.aborters.push(aborter);
        }
    }

    /// What was lost, if anything was.
    pub fn loss(&self) -> Option<String> {
        self.shared.state.lock().loss.clone()
    }

    /// Ends the watch on all ranks, and gives the group of processes back: as it is, or failed, to be rebuilt without
    /// those who are lost.
    pub fn stop(mut self) -> Option<Host> {
        self.end()
    }

    fn end(&mut self) -> Option<Host> {
        self.shared.state.lock().is_ending = true;
        self.shared.changed.notify_all();
        // Its calls have the deadline of the group of processes.
        self.thread.take()?.join().ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn watch(&self, mut host: Host) -> Host {
        loop {
            let mut state = self.state.lock();
            if !state.is_ending {
                self.changed.wait_for(&mut state, INTERVAL);
            }
            let mut somebody_ends = [u8::from(state.is_ending)];
            drop(state);
            match host.all_reduce_staged(&mut somebody_ends, Reduction::Maximum) {
                Ok(()) if somebody_ends == [0] => {}
                Ok(()) => return host,
                Err(error) => {
                    self.lose(&error.to_string());
                    return host;
                }
            }
        }
    }

    fn lose(&self, loss: &str) {
        let mut state = self.state.lock();
        state.loss = Some(loss.to_owned());
        let aborters = std::mem::take(&mut state.aborters);
        drop(state);
        // All at once: each may take its time.
        std::thread::scope(|scope| {
            for aborter in &aborters {
                let aborting = std::thread::Builder::new().spawn_scoped(scope, || aborter.abort(loss));
                if aborting.is_err() {
                    aborter.abort(loss);
                }
            }
        });
    }
}
