//! What a person is told beside what the job prints.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::output;

/// Messages on standard error.
#[derive(Debug)]
pub(crate) struct Notes {
    quiet: bool,
    /// Whether the terminal leaves line ends as they are.
    raw: AtomicBool,
}

impl Notes {
    /// Messages, or none.
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet, raw: AtomicBool::new(false) }
    }

    /// The terminal has become raw, or is no more.
    pub(super) fn on_raw_terminal(&self, raw: bool) {
        self.raw.store(raw, Ordering::Relaxed);
    }

    /// Tells something.
    pub(crate) fn tell(&self, text: &str) {
        if self.quiet {
            return;
        }
        let text = format!("muster: {text}");
        if self.raw.load(Ordering::Relaxed) {
            output::note(&format!("\r\n{}\r", text.replace('\n', "\r\n")));
        } else {
            output::note(&text);
        }
    }
}
