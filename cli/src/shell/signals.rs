//! Signals that end an interactive job with its command.

use std::future::pending;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{self, SignalKind, signal};
use tokio::time::sleep;

/// Within this time signals are one.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Signals that no longer end the process by themselves.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hang_up: unix::Signal,
}

impl Signals {
    /// Takes them over.
    pub(crate) fn take_over() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for another one, of somebody who has lost patience: programs such as `timeout` send two at once.
    pub(crate) async fn lost_patience() {
        sleep(AT_ONCE).await;
        match Self::take_over() {
            Ok(mut fresh) => drop(fresh.next().await),
            Err(_) => pending().await,
        }
    }

    /// Waits for the next; the exit code that shells use for it.
    pub(crate) async fn next(&mut self) -> u8 {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hang_up.recv() => SignalKind::hangup(),
        };
        u8::try_from(128 + kind.as_raw_value()).unwrap_or(u8::MAX)
    }
}
