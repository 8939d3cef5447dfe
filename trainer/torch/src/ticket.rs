//! How a request ended, once it has.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::failure::Failure;

type Listener = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    outcome: Option<Result<(), Failure>>,
    listeners: Vec<Listener>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

/// Tells how a request ended. Clones tell of the same one.
#[derive(Clone)]
pub struct Ticket(Arc<Shared>);

/// The other side of a [`Ticket`]. Dropping it without a word says that the request was never made.
pub struct Promise(Option<Arc<Shared>>);

impl Ticket {
    /// A ticket, and what ends its wait.
    pub fn new() -> (Self, Promise) {
        let shared = Arc::new(Shared::default());
        (Self(Arc::clone(&shared)), Promise(Some(shared)))
    }

    /// How the request ended, if it has.
    pub fn outcome(&self) -> Option<Result<(), Failure>> {
        self.0.state.lock().outcome.clone()
    }

    /// How the request ended, if it does within `longest`.
    pub fn wait(&self, longest: Duration) -> Option<Result<(), Failure>> {
        let mut state = self.0.state.lock();
        if let Some(until) = Instant::now().checked_add(longest) {
            self.0.ended.wait_while_until(&mut state, |state| state.outcome.is_none(), until);
        } else {
            self.0.ended.wait_while(&mut state, |state| state.outcome.is_none());
        }
        state.outcome.clone()
    }

    /// Has `listener` called once the request has ended: by the thread that ended it, or at once.
    pub fn when_ended(&self, listener: impl FnOnce() + Send + 'static) {
        let mut state = self.0.state.lock();
        if state.outcome.is_none() {
            state.listeners.push(Box::new(listener));
            return;
        }
        drop(state);
        listener();
    }
}

impl Promise {
    /// Says how the request ended.
    pub fn keep(mut self, outcome: Result<(), Failure>) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: Result<(), Failure>) {
        let Some(shared) = self.0.take() else { return };
        let mut state = shared.state.lock();
        state.outcome = Some(outcome);
        let listeners = std::mem::take(&mut state.listeners);
        drop(state);
        shared.ended.notify_all();
        for listener in listeners {
            listener();
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.tell(Err(Failure::closed()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::failure::Kind;

    #[test]
    fn listeners_hear_of_the_end_whenever_they_come() {
        let (ticket, promise) = Ticket::new();
        let (sender, heard) = mpsc::channel();
        let early = sender.clone();
        ticket.when_ended(move || early.send("early").unwrap());
        assert!(ticket.outcome().is_none() && heard.try_recv().is_err());
        promise.keep(Ok(()));
        ticket.when_ended(move || sender.send("late").unwrap());
        assert_eq!(heard.iter().collect::<Vec<_>>(), ["early", "late"]);
        assert!(matches!(ticket.wait(Duration::MAX), Some(Ok(()))));
    }

    #[test]
    fn a_broken_promise_is_told_too() {
        let (ticket, promise) = Ticket::new();
        assert!(ticket.wait(Duration::ZERO).is_none());
        drop(promise);
        assert_eq!(ticket.outcome().unwrap().unwrap_err().kind, Kind::Closed);
    }
}
