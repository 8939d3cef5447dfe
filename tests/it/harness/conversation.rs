//! What a person types and reads, as one text for a snapshot.

use std::fmt::Write as _;

use super::Home;
use super::normalise::normalise;
use super::program::{self, Finished};

/// Commands and their answers.
pub(crate) struct Conversation<'a> {
    home: &'a Home,
    text: String,
}

impl<'a> Conversation<'a> {
    pub(crate) fn in_home(home: &'a Home) -> Self {
        Self { home, text: String::new() }
    }

    /// Types `muster …` or `kubectl …`; words are separated by spaces.
    pub(crate) async fn types(&mut self, line: &str) -> Finished {
        let words: Vec<&str> = line.split(' ').collect();
        let command = match words.as_slice() {
            ["muster", words @ ..] => self.home.muster(words),
            ["kubectl", words @ ..] => self.home.kubectl(words),
            _ => panic!("`{line}` is neither muster nor kubectl"),
        };
        let finished = program::run(command).await;
        self.note(line, &finished);
        finished
    }

    /// Puts a command that was run elsewhere into the text.
    pub(crate) fn note(&mut self, line: &str, finished: &Finished) {
        let shown = |text: &str| normalise(text, self.home);
        let _infallible = writeln!(self.text, "$ {}", shown(line).trim_end());
        self.text += &shown(&finished.stdout);
        for error in shown(&finished.stderr).lines() {
            let _infallible = writeln!(self.text, "! {error}");
        }
        if finished.code != 0 {
            let _infallible = writeln!(self.text, "exit code {}", finished.code);
        }
        self.text.push('\n');
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}
