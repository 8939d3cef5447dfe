//! How long a container that ended waits before it starts again. Pure.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_mins(5);
/// A container that ran so long starts afresh.
const FORGIVEN_AFTER: Duration = Duration::from_mins(10);

/// The restarts of one container: at once, then after 10 s, 20 s, … 300 s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// The wait after a run that lasted `ran`.
    pub(crate) fn next(&mut self, ran: Duration) -> Duration {
        let wait = match self.last {
            _ if ran >= FORGIVEN_AFTER => Duration::ZERO,
            None => Duration::ZERO,
            Some(Duration::ZERO) => FIRST,
            Some(last) => (last * 2).min(LONGEST),
        };
        self.last = Some(wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes_and_are_forgiven() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..8).map(|_| backoff.next(Duration::from_secs(1)).as_secs()).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.next(FORGIVEN_AFTER), Duration::ZERO);
        assert_eq!(backoff.next(Duration::ZERO), FIRST);
    }
}
