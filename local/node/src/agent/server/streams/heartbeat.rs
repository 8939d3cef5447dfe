//! Whether the client of a stream is still there.
//!
//! A client is asked in intervals, and whatever it says is an answer. How long it may be silent counts only while somebody
//! listens: the answer of a client whose input a command leaves unread waits behind that input. What is asked in the
//! meantime finds out all the same that a connection is gone, as it cannot be written.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

use crate::options::StreamPatience;

/// Why a client is given up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Gone {
    /// It does not take what it is told, and says nothing.
    #[error("the client took nothing and said nothing for {0:?}")]
    Silent(Duration),
    /// The connection does not carry what is said.
    #[error("the connection with the client broke off: {0}")]
    Broken(String),
}

/// What is known of one client's being there.
#[derive(Debug)]
pub(super) struct Heartbeat {
    patience: StreamPatience,
    /// How often it has said something.
    heard: AtomicU64,
}

impl Heartbeat {
    /// A client that is there.
    pub(super) fn new(patience: StreamPatience) -> Self {
        Self { patience, heard: AtomicU64::new(0) }
    }

    /// When to ask the client whether it is there.
    pub(super) fn times(&self) -> Interval {
        let mut times = interval_at(Instant::now() + self.patience.ask, self.patience.ask);
        times.set_missed_tick_behavior(MissedTickBehavior::Delay);
        times
    }

    /// What the client says next; nothing when it is gone or silent for too long.
    pub(super) async fn hear<T>(&self, next: impl Future<Output = Option<T>>) -> Option<T> {
        let Ok(said) = timeout(self.patience.silence, next).await else {
            tracing::debug!(silence = ?self.patience.silence, "a client of a stream does not answer any more");
            return None;
        };
        self.heard.fetch_add(1, Ordering::Relaxed);
        said
    }

    /// Tells the client something. One that is slow to take it must say something now and then.
    pub(super) async fn tell<E: Display>(
        &self,
        told: impl Future<Output = Result<(), E>>,
    ) -> Result<(), Gone> {
        let mut heard = self.heard.load(Ordering::Relaxed);
        tokio::pin!(told);
        loop {
            if let Ok(told) = timeout(self.patience.silence, &mut told).await {
                return told.map_err(|error| Gone::Broken(error.to_string()));
            }
            let before = std::mem::replace(&mut heard, self.heard.load(Ordering::Relaxed));
            if heard == before {
                return Err(Gone::Silent(self.patience.silence));
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::future::{pending, ready};

    use tokio::time::sleep;

    use super::*;

    pub(in super::super) const PATIENCE: StreamPatience = StreamPatience {
        ask: Duration::from_secs(10),
        silence: Duration::from_mins(1),
        stuck: Duration::from_secs(5),
    };

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_while_it_is_listened_to_is_gone() {
        let heartbeat = Heartbeat::new(PATIENCE);
        let begun = Instant::now();
        assert_eq!(heartbeat.hear(ready(Some(1))).await, Some(1));
        // Nobody listens.
        sleep(PATIENCE.silence * 3).await;
        let late = async {
            sleep(PATIENCE.silence / 2).await;
            Some(2)
        };
        assert_eq!(heartbeat.hear(late).await, Some(2));
        assert_eq!(heartbeat.hear(pending::<Option<i32>>()).await, None);
        assert_eq!(begun.elapsed(), PATIENCE.silence * 9 / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_gone_unless_it_says_something() {
        let heartbeat = Heartbeat::new(PATIENCE);
        let begun = Instant::now();
        let talks = async {
            // Never at the very moment at which somebody looks.
            for _ in 0..7 {
                sleep(PATIENCE.silence * 3 / 8).await;
                heartbeat.hear(ready(Some(()))).await;
            }
            pending::<()>().await;
        };
        let told = tokio::select! {
            told = heartbeat.tell(pending::<Result<(), String>>()) => told,
            () = talks => unreachable!(),
        };
        assert_eq!(told, Err(Gone::Silent(PATIENCE.silence)));
        assert_eq!(
            begun.elapsed(),
            PATIENCE.silence * 4,
            "the whole interval after the last word was silent"
        );
        assert_eq!(heartbeat.tell(ready(Err("cut"))).await, Err(Gone::Broken("cut".to_owned())));
        assert_eq!(heartbeat.tell(ready(Ok::<_, String>(()))).await, Ok(()));
    }
}
