//! A group that makes requests in their order.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use muster_collectives::{Aborter, Communicator, Error, Options};
use parking_lot::{Condvar, Mutex};

use crate::failure::Failure;
use crate::request::Request;
use crate::ticket::{Promise, Ticket};

/// What owns the memory of a request's tensors: dropped once nobody looks at that memory any more.
pub type Keep = Box<dyn Any + Send>;

/// A rank's place in a group. All ranks must hand in the same requests in the same order, messages aside.
pub struct Group {
    shared: Arc<Shared>,
    aborter: Aborter,
    worker: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// The group's ranks among all ranks of the job.
    ranks: Vec<usize>,
}

struct State {
    /// None while a thread makes a request, and once the group is closed.
    communicator: Option<Communicator>,
    jobs: VecDeque<Job>,
    closing: bool,
}

struct Job {
    request: Request,
    promise: Promise,
    keep: Keep,
}

impl Group {
    /// Forms the group; `ranks` are its ranks among all ranks of the job. Blocks until all have come.
    pub fn connect(options: &Options, ranks: Vec<usize>) -> Result<Self, Failure> {
        let communicator = Communicator::connect(options).map_err(|error| Failure::new(error, &ranks))?;
        let aborter = communicator.aborter();
        let state = State { communicator: Some(communicator), jobs: VecDeque::new(), closing: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), ranks });
        let theirs = Arc::clone(&shared);
        let worker = std::thread::Builder::new()
            .name("muster-torch".into())
            .spawn(move || theirs.work())
            .map_err(|source| {
                let action = "start the thread that makes a group's requests".to_owned();
                Failure::new(Error::System { action, source }, &[])
            })?;
        Ok(Self { shared, aborter, worker: Mutex::new(Some(worker)) })
    }

    /// Hands in a request, to be made in the background.
    pub fn submit(&self, request: Request, keep: Keep) -> Ticket {
        let (ticket, promise) = Ticket::new();
        let job = Job { request, promise, keep };
        let mut state = self.shared.state.lock();
        if state.closing {
            drop(state);
            // Its promise is broken with it.
            drop(job);
            return ticket;
        }
        state.jobs.push_back(job);
        drop(state);
        self.shared.changed.notify_all();
        ticket
    }

    /// Hands in a request for whose end the caller waits: where nothing is before it, this thread makes it, which
    /// saves two changes of threads.
    pub fn submit_and_wait(&self, request: Request, keep: Keep) -> Result<(), Failure> {
        let mut state = self.shared.state.lock();
        let free = !state.closing && state.jobs.is_empty();
        let Some(mut communicator) = free.then(|| state.communicator.take()).flatten() else {
            drop(state);
            let ticket = self.submit(request, keep);
            return ticket.wait(std::time::Duration::MAX).unwrap_or_else(|| Err(Failure::closed()));
        };
        drop(state);
        let outcome = self.shared.make(request, &mut communicator);
        self.shared.put_back(communicator);
        outcome
    }

    /// Whether no request is under way or waits.
    pub fn is_idle(&self) -> bool {
        let state = self.shared.state.lock();
        state.jobs.is_empty() && (state.communicator.is_some() || state.closing)
    }

    /// Ends the group on all ranks: requests under way and later ones fail.
    pub fn abort(&self) {
        self.aborter.abort();
    }

    /// Makes the requests that wait, each within its deadline, and leaves the group.
    pub fn close(&self) {
        self.shared.state.lock().closing = true;
        self.shared.changed.notify_all();
        if let Some(worker) = self.worker.lock().take() {
            // It cannot have panicked: what it carries out is caught.
            let _ = worker.join();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn work(&self) {
        while let Some((job, mut communicator)) = self.next() {
            let Job { request, promise, keep } = job;
            let outcome = self.make(request, &mut communicator);
            self.put_back(communicator);
            drop(keep);
            promise.keep(outcome);
        }
    }

    /// Waits for a job and the communicator; none when the group is closed.
    fn next(&self) -> Option<(Job, Communicator)> {
        let mut state = self.state.lock();
        loop {
            if state.communicator.is_some() {
                if let Some(job) = state.jobs.pop_front() {
                    return state.communicator.take().map(|communicator| (job, communicator));
                }
                if state.closing {
                    let communicator = state.communicator.take();
                    drop(state);
                    drop(communicator);
                    return None;
                }
            }
            self.changed.wait(&mut state);
        }
    }

    fn make(&self, request: Request, communicator: &mut Communicator) -> Result<(), Failure> {
        let made = catch_unwind(AssertUnwindSafe(|| request.carry_out(communicator)));
        let Ok(made) = made else {
            communicator.aborter().abort();
            return Err(Failure::panicked());
        };
        made.map_err(|error| Failure::new(error, &self.ranks))
    }

    fn put_back(&self, communicator: Communicator) {
        let mut state = self.state.lock();
        state.communicator = Some(communicator);
        // A worker with nothing to do sleeps on: to wake it would cost the next request a processor.
        let has_work = !state.jobs.is_empty() || state.closing;
        drop(state);
        if has_work {
            self.changed.notify_all();
        }
    }
}
