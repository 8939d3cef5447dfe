//! Reads log files in the form of the container runtime interface.

use std::path::Path;

use fs_err as fs;
use jiff::Timestamp;

/// One line of a log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// When it was printed, as written in the file.
    pub(crate) time: &'a str,
    /// The line goes on in the next entry.
    pub(crate) partial: bool,
    /// What was printed.
    pub(crate) text: &'a [u8],
}

impl Entry<'_> {
    /// When it was printed.
    pub(crate) fn timestamp(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}

/// Reads `<time> <stream> <tag> <text>`; `None` for anything else.
pub(crate) fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let _stream = parts.next()?;
    let tag = parts.next()?;
    Some(Entry { time, partial: tag == b"P", text: parts.next()? })
}

/// The last `count` lines without their times, at most `limit` bytes.
pub(crate) fn last_lines(path: &Path, count: usize, limit: usize) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let mut text = Vec::new();
    for entry in lines[lines.len().saturating_sub(count)..].iter().filter_map(|line| parse(line)) {
        text.extend_from_slice(entry.text);
        if !entry.partial {
            text.push(b'\n');
        }
    }
    let cut = text.len().saturating_sub(limit);
    let text = String::from_utf8_lossy(&text[cut..]).into_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_is_taken_apart() {
        let entry = parse(b"2026-11-20T10:00:00.000000001Z stderr P a b ").unwrap();
        assert_eq!((entry.partial, entry.text), (true, b"a b ".as_slice()));
        assert_eq!(entry.timestamp().unwrap().subsec_nanosecond(), 1);
        assert_eq!(parse(b"nonsense"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(line in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&line).map(|entry| entry.timestamp());
        }
    }
}
