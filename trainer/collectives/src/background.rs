//! Calls in the background: a thread makes a communicator's calls in the order in which they were handed in.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::aborter::Aborter;
use crate::arena::RegisteredBuffer;
use crate::communicator::Communicator;
use crate::element::{Element, Reduction};
use crate::error::Error;

type Work = Box<dyn FnOnce(&mut Communicator) + Send>;

/// A communicator with a thread of its own. All ranks must hand in the same calls in the same order, as they would
/// make them on the [`Communicator`].
///
/// Dropping it makes the calls that are still waiting, each within its deadline, and then leaves the group; call
/// [`Aborter::abort`] first where they should fail at once.
#[derive(Debug)]
pub struct Background {
    queue: Option<Sender<Work>>,
    thread: Option<JoinHandle<Communicator>>,
    aborter: Aborter,
}

impl Background {
    /// Moves the communicator to a thread of its own.
    pub fn start(mut communicator: Communicator) -> Result<Self, Error> {
        let (queue, work) = mpsc::channel::<Work>();
        let aborter = communicator.aborter();
        let thread = std::thread::Builder::new()
            .name("muster-collectives".into())
            .spawn(move || {
                for work in work {
                    work(&mut communicator);
                }
                communicator
            })
            .map_err(Error::system("start the thread that makes a communicator's calls"))?;
        Ok(Self { queue: Some(queue), thread: Some(thread), aborter })
    }

    /// A way to end the group while calls are under way.
    pub fn aborter(&self) -> Aborter {
        self.aborter.clone()
    }

    /// Makes the calls that are still waiting, each within its deadline, and gives the communicator back: to
    /// [rebuild](Communicator::rebuild) a group that has failed. None if submitted work panicked.
    pub fn into_communicator(mut self) -> Option<Communicator> {
        self.queue = None;
        self.thread.take()?.join().ok()
    }

    /// Hands in a piece of work, of any calls. What it needs moves in, and what it returns comes back through the
    /// value, so that nobody can touch a buffer while it is in use.
    pub fn submit<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Communicator) -> Result<R, Error> + Send + 'static,
    ) -> Pending<R> {
        let (sender, result) = mpsc::sync_channel(1);
        let work: Work = Box::new(move |communicator| {
            // Nobody need be interested any more.
            let _ = sender.send(work(communicator));
        });
        if let Some(queue) = &self.queue {
            // A thread that is gone drops the sender with the work, which the value reports.
            let _ = queue.send(work);
        }
        Pending { result }
    }

    /// Reduces a registered buffer, which comes back through the value.
    pub fn all_reduce<T: Element>(
        &self,
        mut buffer: RegisteredBuffer<T>,
        reduction: Reduction,
    ) -> Pending<RegisteredBuffer<T>> {
        self.submit(move |communicator| {
            communicator.all_reduce(&mut buffer, reduction)?;
            Ok(buffer)
        })
    }

    /// A zeroed buffer in shared memory, once the calls before have been made.
    pub fn allocate<T: Element>(&self, count: usize) -> Pending<RegisteredBuffer<T>> {
        self.submit(move |communicator| communicator.allocate(count))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // The thread ends when it has made the calls that wait.
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic in submitted work was reported by its thread; its calls are reported as closed.
            let _ = thread.join();
        }
    }
}

/// A call in the background. Dropping it gives up the result; the call is made all the same, since other ranks make
/// it too.
#[derive(Debug)]
#[must_use = "the call is made, but whether it went well is told only by `wait`"]
pub struct Pending<R> {
    result: Receiver<Result<R, Error>>,
}

impl<R> Pending<R> {
    /// Waits until the call has ended, which the deadline of the communicator sees to.
    pub fn wait(self) -> Result<R, Error> {
        self.result.recv().unwrap_or(Err(Error::Closed))
    }

    /// Waits at most as long as `longest`; then the value can be asked again after [`Error::StillRunning`].
    pub fn wait_at_most(&self, longest: Duration) -> Result<R, Error> {
        match self.result.recv_timeout(longest) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(Error::StillRunning { after: longest }),
            Err(RecvTimeoutError::Disconnected) => Err(Error::Closed),
        }
    }

    /// The result if the call has ended.
    pub fn poll(&self) -> Option<Result<R, Error>> {
        match self.result.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(Error::Closed)),
        }
    }
}
