//! The lines of watches: every change is encoded once for all watchers that want it in the same form.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::negotiate::Form;
use crate::registry::Resource;

/// Lines that are kept: more than a watcher takes out of the history at once, so that a watcher that follows right
/// behind another finds them all.
const KEPT_LINES: usize = 1_024;
/// Bytes of objects whose lines are kept.
const KEPT_BYTES: usize = 4 << 20;

/// What a watcher is told about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Change {
    /// It is there now, or came into the selection.
    Added,
    /// It changed.
    Modified,
    /// It is gone.
    Deleted,
    /// It is no longer selected.
    Left,
}

impl Change {
    /// The `type` of the watch event.
    pub(crate) fn event_type(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted | Self::Left => "DELETED",
        }
    }
}

/// How a watcher wants its objects.
#[derive(Debug, Clone)]
pub(crate) struct Representation {
    /// The resource as it was when the watch began: a definition that changes makes a new one.
    pub resource: Arc<Resource>,
    /// Whole objects, metadata or rows.
    pub form: Form,
    /// What the rows of a table carry of their object.
    pub include: Arc<str>,
    /// The second in which a table is shown, since its rows tell ages; 0 for other forms.
    pub second: i64,
}

impl PartialEq for Representation {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.resource, &other.resource)
            && self.form == other.form
            && self.include == other.include
            && self.second == other.second
    }
}

/// A line that is encoded or about to be.
#[derive(Debug)]
struct Line {
    representation: Representation,
    text: Arc<OnceLock<Bytes>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The lines of each change, one for each representation.
    lines: HashMap<(u64, Change), Vec<Line>>,
    /// Oldest first, with the size of the object.
    order: VecDeque<((u64, Change), usize)>,
    bytes: usize,
}

/// The lines of the newest changes.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<Kept>);

impl Lines {
    /// The line of a change of an object of `size` bytes at `revision`: encoded now, unless another watcher has done so.
    pub(crate) fn get(
        &self,
        revision: u64,
        change: Change,
        representation: &Representation,
        size: usize,
        encode: impl FnOnce() -> Bytes,
    ) -> Bytes {
        let text = self.0.lock().find(revision, change, representation, size);
        text.get_or_init(encode).clone()
    }
}

impl Kept {
    fn find(
        &mut self,
        revision: u64,
        change: Change,
        representation: &Representation,
        size: usize,
    ) -> Arc<OnceLock<Bytes>> {
        let lines = self.lines.entry((revision, change)).or_default();
        if let Some(line) = lines.iter().find(|line| line.representation == *representation) {
            return line.text.clone();
        }
        let text = Arc::<OnceLock<Bytes>>::default();
        lines.push(Line { representation: representation.clone(), text: text.clone() });
        self.order.push_back(((revision, change), size));
        self.bytes += size;
        while self.order.len() > KEPT_LINES || self.bytes > KEPT_BYTES {
            let Some((oldest, size)) = self.order.pop_front() else { break };
            self.bytes -= size;
            if let Some(lines) = self.lines.get_mut(&oldest) {
                lines.remove(0);
                if lines.is_empty() {
                    self.lines.remove(&oldest);
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn representation(form: Form) -> Representation {
        let resource = crate::builtin::resources().into_iter().next().expect("a resource");
        Representation { resource: Arc::new(resource), form, include: "".into(), second: 0 }
    }

    #[test]
    fn a_change_is_encoded_once_for_each_representation() {
        let lines = Lines::default();
        let (whole, partial) = (representation(Form::Object), representation(Form::Partial));
        let mut encoded = 0;
        for (change, representation) in [
            (Change::Added, &whole),
            (Change::Added, &partial),
            (Change::Added, &whole),
            (Change::Modified, &whole),
            (Change::Added, &partial),
        ] {
            lines.get(7, change, representation, 10, || {
                encoded += 1;
                Bytes::new()
            });
        }
        assert_eq!(encoded, 3);
    }

    fn kept(lines: &Lines) -> (usize, usize) {
        let kept = lines.0.lock();
        (kept.lines.len(), kept.bytes)
    }

    #[test]
    fn few_lines_and_bytes_are_kept() {
        let lines = Lines::default();
        let whole = representation(Form::Object);
        for revision in 0..2 * KEPT_LINES as u64 {
            lines.get(revision, Change::Added, &whole, 1, Bytes::new);
        }
        assert_eq!(kept(&lines), (KEPT_LINES, KEPT_LINES));
        lines.get(1 << 20, Change::Added, &whole, KEPT_BYTES, Bytes::new);
        assert_eq!(kept(&lines), (1, KEPT_BYTES));
        lines.get(2 << 20, Change::Added, &whole, 2 * KEPT_BYTES, Bytes::new);
        assert_eq!(kept(&lines), (0, 0));
    }
}
