//! The terminal at which a person sits, while what is typed goes to another.

use std::io::{self, IsTerminal as _, stdin};

use kube::api::TerminalSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::notes::Notes;

/// A terminal that passes on every key as it is, until this is dropped.
#[derive(Debug)]
pub(super) struct RawTerminal<'a> {
    before: Termios,
    notes: &'a Notes,
}

impl<'a> RawTerminal<'a> {
    /// Makes standard input raw; none if it is no terminal.
    pub(super) fn enter(notes: &'a Notes) -> io::Result<Option<Self>> {
        if !stdin().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Drain, &raw)?;
        notes.on_raw_terminal(true);
        Ok(Some(Self { before, notes }))
    }
}

impl Drop for RawTerminal<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
        self.notes.on_raw_terminal(false);
    }
}

/// How large the terminal is.
pub(super) fn size() -> Option<TerminalSize> {
    let size = tcgetwinsize(stdin()).ok()?;
    Some(TerminalSize { width: size.ws_col, height: size.ws_row })
}
