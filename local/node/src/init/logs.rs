//! Writes what a container prints into its log file, line by line in the form of the container runtime interface.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use jiff::Timestamp;

/// A longer line is written in parts, as other runtimes do.
const LINE_LIMIT: usize = 16 << 10;
/// A file of this size is put aside.
const ROTATE_BYTES: u64 = 10 << 20;
/// That many files are kept besides the current one.
const KEPT_FILES: u32 = 4;

/// Which pipe a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Output => "stdout",
            Self::Error => "stderr",
        }
    }
}

/// The log file of one start of a container.
#[derive(Debug)]
pub(crate) struct LogWriter {
    path: PathBuf,
    file: Option<fs::File>,
    size: u64,
    partial: [Vec<u8>; 2],
    scratch: Vec<u8>,
    /// When something was read last.
    now: Timestamp,
    /// How many lines could not be written, and since when.
    lost: Option<(usize, Timestamp)>,
}

impl LogWriter {
    /// Creates the file.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = fs::OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file: Some(file),
            size,
            partial: Default::default(),
            scratch: Vec::new(),
            now: Timestamp::UNIX_EPOCH,
            lost: None,
        })
    }

    /// Takes what was read from a pipe at `now`; whole lines go to the file.
    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) {
        self.now = now;
        let mut partial = std::mem::take(&mut self.partial[stream as usize]);
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            partial.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            self.line(stream, &partial, now);
            partial.clear();
        }
        partial.extend_from_slice(rest);
        while partial.len() > LINE_LIMIT {
            let tail = partial.split_off(LINE_LIMIT);
            self.entry(stream, 'P', &partial, now);
            partial = tail;
        }
        self.partial[stream as usize] = partial;
        self.flush();
    }

    /// Writes what is left without a line end.
    pub(crate) fn finish(&mut self, now: Timestamp) {
        self.now = now;
        for stream in [Stream::Output, Stream::Error] {
            let partial = std::mem::take(&mut self.partial[stream as usize]);
            if !partial.is_empty() {
                self.line(stream, &partial, now);
            }
        }
        self.flush();
        self.file = None;
        // Followers stop at this mark.
        let _ = fs::write(self.path.with_extension("end"), "");
    }

    fn line(&mut self, stream: Stream, line: &[u8], now: Timestamp) {
        let mut rest = line;
        while rest.len() > LINE_LIMIT {
            let (part, tail) = rest.split_at(LINE_LIMIT);
            self.entry(stream, 'P', part, now);
            rest = tail;
        }
        self.entry(stream, 'F', rest, now);
    }

    fn entry(&mut self, stream: Stream, tag: char, text: &[u8], now: Timestamp) {
        let _ = write!(self.scratch, "{now:.9} {} {tag} ", stream.name());
        self.scratch.extend_from_slice(text);
        self.scratch.push(b'\n');
        if self.scratch.len() > 64 << 10 {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.scratch.is_empty() {
            return;
        }
        // A full disk must not stop the container: the lines are lost, the work goes on.
        if let Some(file) = &mut self.file {
            if let Ok(size) = append(file, self.size, self.lost, &self.scratch) {
                self.size = size;
                self.lost = None;
            } else {
                let count = self.scratch.split(|byte| *byte == b'\n').count() - 1;
                let (before, since) = self.lost.unwrap_or((0, self.now));
                self.lost = Some((before + count, since));
            }
        }
        self.scratch.clear();
        if self.size >= ROTATE_BYTES {
            self.rotate();
        }
    }

    fn rotate(&mut self) {
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..KEPT_FILES).rev() {
            let _ = fs::rename(numbered(number), numbered(number + 1));
        }
        if fs::rename(&self.path, numbered(1)).is_ok() {
            self.file = fs::OpenOptions::new().create(true).append(true).open(&self.path).ok();
            self.size = 0;
        }
    }
}

/// Writes whole entries or nothing, and before them what could not be written; the new size of the file.
fn append(
    file: &mut fs::File,
    size: u64,
    lost: Option<(usize, Timestamp)>,
    entries: &[u8],
) -> io::Result<u64> {
    let note = lost.map_or_else(String::new, |(count, since)| {
        format!("{since:.9} stderr F muster: {count} lines are lost: the log could not be written, is the disk full?\n")
    });
    let bytes = [note.as_bytes(), entries].concat();
    if let Err(error) = file.write_all(&bytes) {
        file.set_len(size)?;
        return Err(error);
    }
    Ok(size + bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pushes: &[(Stream, &[u8])]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = LogWriter::create(&path).unwrap();
        for (stream, bytes) in pushes {
            log.push(*stream, bytes, Timestamp::UNIX_EPOCH);
        }
        log.finish(Timestamp::UNIX_EPOCH);
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn streams_keep_their_own_unfinished_lines() {
        let text =
            written(&[(Stream::Output, b"one\ntw"), (Stream::Error, b"oops"), (Stream::Output, b"o\n")]);
        let zero = "1970-01-01T00:00:00.000000000Z";
        assert_eq!(text, format!("{zero} stdout F one\n{zero} stdout F two\n{zero} stderr F oops\n"));
    }

    #[test]
    fn a_long_line_is_cut_into_parts_and_loses_nothing() {
        let long = vec![b'x'; 40_000];
        let text = written(&[(Stream::Output, &long), (Stream::Output, b"\n")]);
        let tags: String = text.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
        assert_eq!(tags, "PPF");
        let length: usize = text.lines().map(|line| line.split(' ').nth(3).unwrap().len()).sum();
        assert_eq!(length, 40_000);
    }
}
