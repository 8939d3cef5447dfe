//! A number in shared memory that one rank advances and others wait for.

#![allow(unsafe_code)]

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, SeqCst};
use std::time::Duration;

use rustix::thread::futex;

/// The number and how many wait for it in the kernel. Zeroed memory is a valid signal that has reached 0.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Signal {
    value: AtomicU32,
    sleepers: AtomicU32,
}

impl Signal {
    /// Publishes that the number was reached, and everything written before.
    #[inline]
    pub(crate) fn advance(&self, to: u32) {
        // Both sides use sequentially consistent accesses: either the sleeper sees the new number, or we see it.
        self.value.store(to, SeqCst);
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
        self.sleepers.fetch_add(1, SeqCst);
        let seen = self.value.load(SeqCst);
        if !reached(seen, wanted) && !is_over() {
            let timeout = futex::Timespec {
                tv_sec: longest.as_secs() as i64,
                tv_nsec: i64::from(longest.subsec_nanos()),
            };
            // Every outcome (woken, changed, interrupted, timed out) leads the caller to look again.
            let _ = futex::wait(&self.value, futex::Flags::empty(), seen, Some(&timeout));
        }
        self.sleepers.fetch_sub(1, SeqCst);
    }

    pub(crate) fn wake_all(&self) {
        // Waking cannot fail on a mapped, aligned word.
        let _ = futex::wake(&self.value, futex::Flags::empty(), i32::MAX as u32);
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

    #[test]
    fn no_wake_up_is_lost_between_two_threads_that_sleep_at_once() {
        let (left, right) = (Signal::default(), Signal::default());
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
