//! How long a restart waits when restarts follow each other quickly.

use std::time::Duration;

/// The wait before a restart.
///
/// The first restart of a streak happens at once, each further one waits twice as long as the one before. A
/// generation that lives for `reset_after` ends the streak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartBackoff {
    /// Wait before the second restart of a streak.
    pub base: Duration,
    /// Longest wait.
    pub cap: Duration,
    /// Lifetime after which a failure starts a new streak.
    pub reset_after: Duration,
}

impl Default for RestartBackoff {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(1),
            cap: Duration::from_mins(5),
            reset_after: Duration::from_mins(10),
        }
    }
}

impl RestartBackoff {
    /// The wait before the restart with this place in its streak, from 1.
    pub fn delay(&self, streak: u32) -> Duration {
        let Some(doublings) = streak.checked_sub(2) else { return Duration::ZERO };
        self.base.saturating_mul(2_u32.saturating_pow(doublings)).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        let backoff = RestartBackoff::default();
        let waits: Vec<_> =
            [0, 1, 2, 3, 4, 10, 11, u32::MAX].map(|streak| backoff.delay(streak).as_secs()).into();
        assert_eq!(waits, [0, 0, 1, 2, 4, 256, 300, 300]);
    }
}
