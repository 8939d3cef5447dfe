//! Output as lines: whole ones of each worker, and the last ones of a worker. Pure.

use std::collections::VecDeque;

/// A longer line goes on in the next: what is held of it must have an end.
pub(crate) const LONGEST_LINE: usize = 64 * 1024;
/// So much of a line is kept to be reported.
const LONGEST_KEPT: usize = 2 * 1024;

/// How the output of a worker is passed through.
#[derive(Debug)]
pub(crate) enum Framing {
    /// As it comes, in parts of lines too.
    AsItComes,
    /// In whole lines, which lines of other workers do not cut.
    Lines(Lines),
}

impl Framing {
    /// Adds what `bytes` make ready to `ready`.
    pub(crate) fn push(&mut self, bytes: &[u8], ready: &mut Vec<u8>) {
        match self {
            Self::AsItComes => ready.extend_from_slice(bytes),
            Self::Lines(lines) => lines.push(bytes, ready),
        }
    }

    /// Adds what no newline ended.
    pub(crate) fn finish(&mut self, ready: &mut Vec<u8>) {
        if let Self::Lines(lines) = self
            && !lines.held.is_empty()
        {
            lines.end_line(ready);
        }
    }
}

/// Whole lines, each with a prefix.
#[derive(Debug)]
pub(crate) struct Lines {
    prefix: Vec<u8>,
    /// The line that has not ended, shorter than the longest.
    held: Vec<u8>,
}

impl Lines {
    /// Lines that begin with `prefix`.
    pub(crate) fn new(prefix: impl Into<Vec<u8>>) -> Self {
        Self { prefix: prefix.into(), held: Vec::new() }
    }

    fn push(&mut self, bytes: &[u8], ready: &mut Vec<u8>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            while self.held.len() + text.len() > LONGEST_LINE {
                let (fits, rest) = text.split_at(LONGEST_LINE - self.held.len());
                self.held.extend_from_slice(fits);
                self.end_line(ready);
                text = rest;
            }
            self.held.extend_from_slice(text);
            if ends {
                self.end_line(ready);
            }
        }
    }

    fn end_line(&mut self, ready: &mut Vec<u8>) {
        ready.extend_from_slice(&self.prefix);
        ready.append(&mut self.held);
        ready.push(b'\n');
    }
}

/// The last lines of a stream, as a terminal would show them: after a carriage return a line begins anew.
#[derive(Debug)]
pub(crate) struct Tail {
    most: usize,
    lines: VecDeque<Vec<u8>>,
    /// The line that has not ended.
    current: Vec<u8>,
    is_cut: bool,
    returned: bool,
}

impl Tail {
    /// The last `most` lines.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, lines: VecDeque::new(), current: Vec::new(), is_cut: false, returned: false }
    }

    /// Takes the next bytes in.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                b'\r' => self.returned = true,
                byte => {
                    if std::mem::take(&mut self.returned) {
                        self.current.clear();
                        self.is_cut = false;
                    }
                    if self.current.len() < LONGEST_KEPT {
                        self.current.push(*byte);
                    } else {
                        self.is_cut = true;
                    }
                }
            }
        }
    }

    fn end_line(&mut self) {
        self.returned = false;
        let mut line = std::mem::take(&mut self.current);
        if std::mem::take(&mut self.is_cut) {
            line.extend_from_slice("…".as_bytes());
        }
        self.lines.push_back(line);
        if self.lines.len() > self.most {
            self.lines.pop_front();
        }
    }

    /// The lines, also one that no newline ended.
    pub(crate) fn lines(&mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.end_line();
        }
        self.lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(parts: &[&[u8]]) -> Vec<u8> {
        let (mut framing, mut ready) = (Framing::Lines(Lines::new("[1] ")), Vec::new());
        for part in parts {
            framing.push(part, &mut ready);
        }
        framing.finish(&mut ready);
        ready
    }

    fn tail(most: usize, text: &str) -> Vec<String> {
        let mut tail = Tail::new(most);
        tail.push(text.as_bytes());
        tail.lines()
    }

    #[test]
    fn lines_are_whole_and_marked() {
        assert_eq!(framed(&[b"a", b"b\nc\n\nd"]), b"[1] ab\n[1] c\n[1] \n[1] d\n");
        assert_eq!(framed(&[]), b"");
    }

    #[test]
    fn a_line_without_end_is_not_held_without_end() {
        let mut framing = Framing::Lines(Lines::new("> "));
        let mut ready = Vec::new();
        for _ in 0..10 {
            framing.push(&[b'x'; LONGEST_LINE / 4], &mut ready);
        }
        assert_eq!(ready.len(), 2 * (LONGEST_LINE + 3), "two parts have left");
        // A line that is just as long as the longest is one line.
        let longest = [vec![b'x'; LONGEST_LINE], vec![b'\n']].concat();
        assert_eq!(framed(&[&longest]).len(), LONGEST_LINE + 5);
    }

    #[test]
    fn the_last_lines_are_kept_as_a_terminal_shows_them() {
        assert_eq!(tail(2, "a\nb\nc\n"), ["b", "c"]);
        assert_eq!(tail(2, "a\nb\nc"), ["b", "c"]);
        assert_eq!(tail(3, " 1 %\r 2 %\rdone\nnext\r\nlast\r"), ["done", "next", "last"]);
        assert_eq!(tail(0, "a\nb"), [""; 0]);
        let long = tail(1, &"x".repeat(1 << 20));
        assert_eq!(long[0].chars().count(), LONGEST_KEPT + 1);
        assert!(long[0].ends_with('…'));
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_however_it_comes(text in "[ab\n]{0,60}", cuts in prop::collection::vec(0_usize..60, 0..6)) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let parts: Vec<_> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
            let expected: Vec<_> = text.lines().flat_map(|line| ["[1] ", line, "\n"]).collect();
            prop_assert_eq!(framed(&parts), expected.concat().into_bytes());
            let mut tail = Tail::new(3);
            for part in &parts {
                tail.push(part);
            }
            let all: Vec<_> = text.lines().collect();
            prop_assert_eq!(tail.lines(), &all[all.len().saturating_sub(3)..]);
        }
    }
}
