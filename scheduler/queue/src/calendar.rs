//! Windows in time that belong to somebody: maintenance, and advance reservations.

use std::collections::BTreeSet;

use muster_scheduler_core::space::NodeId;

use crate::time::{Milliseconds, Time};

/// Who may run in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Nobody: the nodes are being worked on.
    Maintenance,
    /// Jobs that name this reservation.
    Reserved(String),
}

/// A span of time, once or again and again, in which nodes are set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Its name, for explanations.
    pub name: String,
    /// When it begins for the first time.
    pub begins: Time,
    /// How long it lasts, in milliseconds.
    pub lasts: Milliseconds,
    /// From one beginning to the next, in milliseconds; `None` for once.
    pub every: Option<Milliseconds>,
    /// No occurrence begins at or after this moment.
    pub until: Option<Time>,
    /// The nodes.
    pub nodes: BTreeSet<NodeId>,
    /// Who may run there.
    pub purpose: Purpose,
}

/// Why a window makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// It has no length.
    #[error("window {0}: its length must be above 0")]
    NoLength(String),
    /// It begins again before it ends.
    #[error(
        "window {name}: it lasts {lasts} ms but begins again every {every} ms; every must not be shorter"
    )]
    OverlapsItself {
        /// The window.
        name: String,
        /// Its length.
        lasts: Milliseconds,
        /// Its period.
        every: Milliseconds,
    },
    /// Two windows of one name.
    #[error("window {0} is there already; names must be unique")]
    Duplicate(String),
}

/// One time at which a window is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occurrence<'a> {
    /// The window.
    pub window: &'a Window,
    /// When it opens.
    pub from: Time,
    /// When it closes; at this moment the nodes are free again.
    pub to: Time,
}

/// All windows.
#[derive(Debug, Clone, Default)]
pub struct Calendar {
    windows: Vec<Window>,
}

impl Calendar {
    /// Adds a window.
    ///
    /// # Errors
    /// [`WindowError`] when it makes no sense; the calendar stays as it was.
    pub fn add(&mut self, window: Window) -> Result<(), WindowError> {
        if window.lasts <= 0 {
            return Err(WindowError::NoLength(window.name));
        }
        if let Some(every) = window.every.filter(|every| *every < window.lasts) {
            return Err(WindowError::OverlapsItself { name: window.name, lasts: window.lasts, every });
        }
        if self.windows.iter().any(|known| known.name == window.name) {
            return Err(WindowError::Duplicate(window.name));
        }
        self.windows.push(window);
        Ok(())
    }

    /// Removes a window; whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.windows.len();
        self.windows.retain(|window| window.name != name);
        self.windows.len() != before
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// All windows, in the order in which they were added.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// When windows are open at any moment of `from` (included) to `to` (not included), by beginning.
    pub fn occurrences(&self, from: Time, to: Time) -> Vec<Occurrence<'_>> {
        let mut found: Vec<Occurrence<'_>> =
            self.windows.iter().flat_map(|window| window.within(from, to)).collect();
        found.sort_by_key(|occurrence| (occurrence.from, occurrence.to));
        found
    }
}

impl Window {
    fn within(&self, from: Time, to: Time) -> impl Iterator<Item = Occurrence<'_>> {
        let every = self.every.unwrap_or(0);
        let skipped = match from.since(self.begins + self.lasts) {
            0 => 0,
            late if every > 0 => late / every,
            _ => 0,
        };
        let last = if every > 0 { i64::MAX } else { 1 };
        (0..last)
            .map(move |turn| self.begins + every.saturating_mul(turn.saturating_add(skipped)))
            .take_while(move |begin| *begin < to && self.until.is_none_or(|until| *begin < until))
            .map(move |begin| Occurrence { window: self, from: begin, to: begin + self.lasts })
            .filter(move |occurrence| occurrence.to > from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(every: Option<Milliseconds>) -> Window {
        Window {
            name: "weekly".into(),
            begins: Time(100),
            lasts: 10,
            every,
            until: Some(Time(1000)),
            nodes: BTreeSet::new(),
            purpose: Purpose::Maintenance,
        }
    }

    #[test]
    fn recurring_windows_are_found_wherever_one_looks() {
        let mut calendar = Calendar::default();
        calendar.add(window(Some(50))).unwrap();
        let begins = |from, to| {
            calendar.occurrences(Time(from), Time(to)).iter().map(|found| found.from.0).collect::<Vec<_>>()
        };
        assert_eq!(begins(0, 201), [100, 150, 200]);
        assert_eq!(begins(109, 110), [100], "still open");
        assert_eq!(begins(110, 150), Vec::<i64>::new(), "closed at its end");
        assert_eq!(begins(940, 2000), [950], "none begins after the last day");
    }

    #[test]
    fn windows_that_make_no_sense_are_refused() {
        let mut calendar = Calendar::default();
        assert!(matches!(calendar.add(window(Some(5))), Err(WindowError::OverlapsItself { .. })));
        assert!(matches!(calendar.add(Window { lasts: 0, ..window(None) }), Err(WindowError::NoLength(_))));
        calendar.add(window(None)).unwrap();
        assert!(matches!(calendar.add(window(None)), Err(WindowError::Duplicate(_))));
    }
}
