//! Lines of a log as they are: any bytes, any length.

use std::io;

use futures::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

/// A longer line comes in pieces, so that one without an end takes no memory without one.
const LIMIT: u64 = 1 << 20;
/// So much of a line is shown beside others.
const SHOWN: usize = 500;

/// The next line with its end, or a piece of a long one; `None` at the end of the log.
pub(crate) async fn next(log: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let count = log.take(LIMIT).read_until(b'\n', &mut line).await?;
    Ok((count > 0).then_some(line))
}

/// A line as text that is safe and short enough for a terminal.
pub(crate) fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut kept = text.chars().filter(|one| *one == '\t' || !one.is_control());
    let mut shown: String = kept.by_ref().take(SHOWN).collect();
    if kept.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn any_bytes_are_lines() {
        let mut log: &[u8] = b"a\0\xff\n\nlast";
        let mut lines = Vec::new();
        while let Some(line) = next(&mut log).await.unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, [b"a\0\xff\n".as_slice(), b"\n", b"last"]);
    }

    #[tokio::test]
    async fn a_line_without_an_end_comes_in_pieces() {
        let text = vec![b'x'; (1 << 20) + 7];
        let mut log = &text[..];
        let first = next(&mut log).await.unwrap().unwrap();
        assert_eq!((first.len(), next(&mut log).await.unwrap().unwrap().len()), (1 << 20, 7));
    }

    #[test]
    fn what_is_shown_is_short_and_harmless() {
        assert_eq!(shown(b"a\x1b[31m\0b\tc\xff\r\n"), "a[31mb\tc\u{fffd}");
        assert_eq!(shown(&[b'x'; 1000]).chars().count(), SHOWN + 1);
    }
}
