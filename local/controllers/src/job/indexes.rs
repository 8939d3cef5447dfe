//! Sets of completion indexes, written as `0-2,5`. Pure.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Reads a set; what cannot be read is left out, as is everything from `completions` on.
pub(crate) fn parse(text: &str, completions: i32) -> BTreeSet<i32> {
    let mut indexes = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            indexes.extend(first.max(0)..=last.min(completions - 1));
        }
    }
    indexes
}

/// Writes a set.
pub(crate) fn format(indexes: &BTreeSet<i32>) -> String {
    let mut text = String::new();
    let mut rest = indexes.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while rest.next_if_eq(&(last + 1)).is_some() {
            last += 1;
        }
        let separator = if text.is_empty() { "" } else { "," };
        let _ = match last - first {
            0 => write!(text, "{separator}{first}"),
            1 => write!(text, "{separator}{first},{last}"),
            _ => write!(text, "{separator}{first}-{last}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_written_as_kubernetes_does() {
        for text in ["", "0", "0,1", "0-2", "0-2,4", "1,3,5-8"] {
            assert_eq!(format(&parse(text, 100)), text);
        }
        assert_eq!(parse("0-9", 3), BTreeSet::from([0, 1, 2]));
        assert_eq!(parse("x,3-y,4", 100), BTreeSet::from([4]));
    }
}
