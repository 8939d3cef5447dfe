//! A number in shared memory that one rank advances and others wait for.

#![allow(unsafe_code)]

use std::sync::atomic::Ordering::{Acquire, SeqCst};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::futex;

/// A word that threads share and can sleep on.
pub(crate) trait Word {
    fn load(&self, ordering: Ordering) -> u32;
    fn store(&self, value: u32);
    fn add(&self, value: u32);
    /// Sleeps while the word is `seen`, at most as long as `longest`; may return early.
    fn sleep_while(&self, seen: u32, longest: Duration);
    fn wake_all(&self);
}

/// The word as it lies in shared memory.
impl Word for AtomicU32 {
    #[inline]
    fn load(&self, ordering: Ordering) -> u32 {
        self.load(ordering)
    }

    #[inline]
    fn store(&self, value: u32) {
        self.store(value, SeqCst);
    }

    fn add(&self, value: u32) {
        self.fetch_add(value, SeqCst);
    }

    fn sleep_while(&self, seen: u32, longest: Duration) {
        let timeout =
            futex::Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: i64::from(longest.subsec_nanos()) };
        // Every outcome (woken, changed, interrupted, timed out) leads the caller to look again.
        let _ = futex::wait(self, futex::Flags::empty(), seen, Some(&timeout));
    }

    fn wake_all(&self) {
        // Waking cannot fail on a mapped, aligned word.
        let _ = futex::wake(self, futex::Flags::empty(), i32::MAX as u32);
    }
}

/// The number and how many wait for it in the kernel. Zeroed memory is a valid signal that has reached 0.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Signal<W = AtomicU32> {
    value: W,
    sleepers: W,
}

impl<W: Word> Signal<W> {
    /// Publishes that the number was reached, and everything written before.
    #[inline]
    pub(crate) fn advance(&self, to: u32) {
        // Both sides use sequentially consistent accesses: either the sleeper sees the new number, or we see it.
        self.value.store(to);
        if self.sleepers.load(SeqCst) != 0 {
            self.wake_all();
        }
    }

    /// Whether the number was reached; if so, what was written before is visible.
    #[inline]
    pub(crate) fn has_reached(&self, wanted: u32) -> bool {
        reached(self.value.load(Acquire), wanted)
    }

    /// Sleeps until the number may have been reached, `is_over` may have become true, or `longest` passed.
    pub(crate) fn sleep(&self, wanted: u32, longest: Duration, is_over: impl FnOnce() -> bool) {
        self.sleepers.add(1);
        let seen = self.value.load(SeqCst);
        if !reached(seen, wanted) && !is_over() {
            self.value.sleep_while(seen, longest);
        }
        self.sleepers.add(u32::MAX);
    }

    pub(crate) fn wake_all(&self) {
        self.value.wake_all();
    }
}

/// Numbers wrap; ranks are never 2^31 steps apart.
fn reached(current: u32, wanted: u32) -> bool {
    current.wrapping_sub(wanted).cast_signed() >= 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_across_the_wrap() {
        assert!(reached(5, 5) && reached(6, 5) && !reached(4, 5));
        assert!(reached(2, u32::MAX - 1) && !reached(u32::MAX - 1, 2));
    }

    /// A word under the control of the model checker; its sleep has no end of its own, so that a lost wake-up is a
    /// deadlock, which the checker reports.
    #[derive(Default)]
    struct Modelled {
        value: shuttle::sync::atomic::AtomicU32,
        lock: shuttle::sync::Mutex<()>,
        woken: shuttle::sync::Condvar,
    }

    impl Word for Modelled {
        fn load(&self, ordering: Ordering) -> u32 {
            self.value.load(ordering)
        }

        fn store(&self, value: u32) {
            self.value.store(value, SeqCst);
        }

        fn add(&self, value: u32) {
            self.value.fetch_add(value, SeqCst);
        }

        fn sleep_while(&self, seen: u32, _longest: Duration) {
            let guard = self.lock.lock().unwrap();
            if self.value.load(SeqCst) == seen {
                drop(self.woken.wait(guard).unwrap());
            }
        }

        fn wake_all(&self) {
            let _guard = self.lock.lock().unwrap();
            self.woken.notify_all();
        }
    }

    #[test]
    fn no_interleaving_of_two_ranks_loses_a_wake_up_or_data() {
        shuttle::check_dfs(
            || {
                let signals = shuttle::sync::Arc::new(<[Signal<Modelled>; 2]>::default());
                let data = shuttle::sync::Arc::new(shuttle::sync::atomic::AtomicU32::new(0));
                let rank = |own: usize| {
                    let (signals, data) = (signals.clone(), data.clone());
                    move || {
                        data.fetch_add(1, SeqCst);
                        signals[own].advance(1);
                        while !signals[1 - own].has_reached(1) {
                            signals[1 - own].sleep(1, Duration::ZERO, || false);
                        }
                        assert_eq!(data.load(SeqCst), 2);
                    }
                };
                let peer = shuttle::thread::spawn(rank(1));
                rank(0)();
                peer.join().unwrap();
            },
            None,
        );
    }

    #[test]
    fn no_wake_up_is_lost_between_two_threads_that_sleep_at_once() {
        let (left, right) = (Signal::<AtomicU32>::default(), Signal::<AtomicU32>::default());
        let rounds = 20_000;
        let run = |own: &Signal, other: &Signal| {
            for round in 1..=rounds {
                own.advance(round);
                while !other.has_reached(round) {
                    // A lost wake-up would show as a test that takes a minute a round.
                    other.sleep(round, Duration::from_mins(1), || false);
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| run(&left, &right));
            scope.spawn(|| run(&right, &left));
        });
        assert!(left.has_reached(rounds) && right.has_reached(rounds));
    }
}
