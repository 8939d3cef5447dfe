//! Whether a command waits for what it has set going, and for how long.

use std::time::Duration;

/// Whether to wait, and how long.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WaitArguments {
    /// Return without waiting
    #[arg(long)]
    no_wait: bool,
    /// Longest wait in seconds
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
}

impl WaitArguments {
    /// The longest wait; none without waiting.
    pub(crate) fn patience(&self) -> Option<Duration> {
        (!self.no_wait).then(|| Duration::from_secs(self.timeout))
    }
}
