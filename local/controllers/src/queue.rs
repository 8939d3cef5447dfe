//! Keys that wait to be reconciled: each once, none by two workers at a time, some only later.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// First pause after a failure; it doubles with every further one.
const FIRST_RETRY: Duration = Duration::from_millis(5);
/// Longest pause after a failure.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// A queue of keys.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    wake: Notify,
}

#[derive(Debug)]
struct State<T> {
    ready: VecDeque<T>,
    queued: HashSet<T>,
    busy: HashSet<T>,
    /// Keys that were added while a worker had them.
    again: HashSet<T>,
    later: BTreeSet<(Instant, T)>,
    due: HashMap<T, Instant>,
    failures: HashMap<T, u32>,
}

impl<T: Clone + Eq + Hash + Ord> Queue<T> {
    pub(crate) fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            busy: HashSet::new(),
            again: HashSet::new(),
            later: BTreeSet::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
        };
        Self { state: Mutex::new(state), wake: Notify::new() }
    }

    /// Asks for a reconciliation now; several requests before it starts are one.
    pub(crate) fn add(&self, key: T) {
        self.state.lock().add(key);
        self.wake.notify_one();
    }

    /// Asks for a reconciliation in a while; the earliest of several requests counts.
    pub(crate) fn add_after(&self, key: T, pause: Duration) {
        self.state.lock().add_at(key, Instant::now() + pause);
        self.wake.notify_one();
    }

    /// The next key; [`Queue::done`] or [`Queue::failed`] must follow.
    pub(crate) async fn next(&self) -> T {
        loop {
            let notified = self.wake.notified();
            let wait = {
                let mut state = self.state.lock();
                state.promote(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.wake.notify_one();
                    }
                    return key;
                }
                state.later.first().map(|(due, _)| *due)
            };
            match wait {
                Some(due) => {
                    tokio::select! {
                        () = notified => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
                None => notified.await,
            }
        }
    }

    /// The key was reconciled.
    pub(crate) fn done(&self, key: &T) {
        let mut state = self.state.lock();
        state.failures.remove(key);
        if state.finish(key) {
            self.wake.notify_one();
        }
    }

    /// The key could not be reconciled and comes again after a pause. Returns how often it failed in a row.
    pub(crate) fn failed(&self, key: &T) -> u32 {
        let mut state = self.state.lock();
        let failures = state.failures.entry(key.clone()).or_default();
        *failures = failures.saturating_add(1);
        let count = *failures;
        let pause = FIRST_RETRY.saturating_mul(1 << (count - 1).min(16)).min(LAST_RETRY);
        state.add_at(key.clone(), Instant::now() + pause);
        state.finish(key);
        self.wake.notify_one();
        count
    }
}

impl<T: Clone + Eq + Hash + Ord> State<T> {
    fn add(&mut self, key: T) {
        if self.busy.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: T, due: Instant) {
        if let Some(before) = self.due.get(&key).copied() {
            if before <= due {
                return;
            }
            self.later.remove(&(before, key.clone()));
        }
        self.due.insert(key.clone(), due);
        self.later.insert((due, key));
    }

    fn promote(&mut self, now: Instant) {
        while self.later.first().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, key)) = self.later.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.busy.insert(key.clone());
        Some(key)
    }

    /// Returns whether the key is ready again.
    fn finish(&mut self, key: &T) -> bool {
        self.busy.remove(key);
        let again = self.again.remove(key);
        if again {
            self.add(key.clone());
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_added_while_busy_comes_again_once() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "b", "a is busy");
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        queue.done(&"b");
        assert!(tokio::time::timeout(Duration::from_mins(1), queue.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_of_several_times_counts() {
        let queue = Queue::new();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(10));
        queue.add_after("a", Duration::from_secs(2));
        queue.add_after("a", Duration::from_secs(5));
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed(), Duration::from_secs(2));
        queue.done(&"a");
        assert!(tokio::time::timeout(Duration::from_mins(1), queue.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_pause_longer_and_longer() {
        let queue = Queue::new();
        queue.add("a");
        let mut pauses = Vec::new();
        for _ in 0..15 {
            let start = Instant::now();
            queue.next().await;
            pauses.push(start.elapsed());
            queue.failed(&"a");
        }
        assert_eq!(pauses[0], Duration::ZERO);
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(pauses[14], LAST_RETRY);
    }
}
