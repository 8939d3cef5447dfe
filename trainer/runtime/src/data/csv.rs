//! Comma-separated numbers with a label in the last column.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::Error;
use super::classes::Classes;
use super::rows::{Room, Writer};
use super::table::Table;

/// Longest line that is read, in bytes.
const LONGEST_LINE: u64 = 16 << 20;

/// The rows of the files read so far.
pub(super) struct Rows<'a> {
    inputs: Writer<'a>,
    row: Vec<f32>,
    classes: Classes,
}

impl<'a> Rows<'a> {
    pub(super) fn new(room: &'a Room) -> Self {
        Self { inputs: Writer::new(room), row: Vec::new(), classes: Classes::default() }
    }

    /// Adds the rows of a file, plain or compressed with gzip; a first line without numbers is a heading.
    pub(super) fn read(&mut self, path: &Path) -> Result<(), Error> {
        let read = |source| Error::Read { path: path.to_owned(), source };
        let file = BufReader::new(fs_err::File::open(path).map_err(read)?);
        let mut reader: Box<dyn BufRead> = if path.extension().is_some_and(|extension| extension == "gz") {
            Box::new(BufReader::new(MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        let mut bytes = Vec::new();
        for line in 1.. {
            bytes.clear();
            (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut bytes).map_err(read)?;
            if bytes.is_empty() {
                break;
            }
            let wrong = |problem| Error::Line { path: path.to_owned(), line, problem };
            if bytes.len() as u64 == LONGEST_LINE {
                return Err(wrong(format!("longer than {LONGEST_LINE} bytes")));
            }
            let text = std::str::from_utf8(&bytes).map_err(|error| wrong(error.to_string()))?.trim_end();
            if text.trim().is_empty() || (line == 1 && is_heading(text)) {
                continue;
            }
            let label = self.read_row(text).map_err(wrong)?;
            self.inputs.add(&self.row)?;
            self.classes.add(label);
        }
        Ok(())
    }

    /// Reads the inputs of a row, and which class it is of.
    fn read_row<'line>(&mut self, text: &'line str) -> Result<&'line str, String> {
        let (inputs, label) =
            text.rsplit_once(',').ok_or("expected inputs and a label, separated by commas")?;
        self.row.clear();
        for (column, field) in inputs.split(',').enumerate() {
            let field = field.trim();
            let value: f32 =
                field.parse().map_err(|_| format!("column {} is {field:?}, not a number", column + 1))?;
            if !value.is_finite() {
                return Err(format!("column {} is {field:?}, not a finite number", column + 1));
            }
            self.row.push(value);
        }
        let found = self.row.len();
        if let Some(width) = self.inputs.width().filter(|width| *width != found) {
            return Err(format!("{} columns, but the lines before have {}", found + 1, width + 1));
        }
        let label = label.trim();
        if label.is_empty() {
            return Err("the label is empty".into());
        }
        Ok(label)
    }

    /// The samples, or none for no rows.
    pub(super) fn into_table(self) -> Result<Option<Table>, Error> {
        let rows = self.inputs.finish()?;
        Ok((rows.len() > 0).then(|| Table::new(rows, None, self.classes.finish())))
    }
}

fn is_heading(line: &str) -> bool {
    line.split(',').all(|field| field.trim().parse::<f32>().is_err())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn load(name: &str, content: &[u8]) -> Result<Table, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs_err::write(&path, content).unwrap();
        let room = Room::ample();
        let mut rows = Rows::new(&room);
        rows.read(&path)?;
        Ok(rows.into_table()?.unwrap())
    }

    #[test]
    fn classes_are_numbered_in_numeric_order() {
        let table = load("a.csv", b"width,height,class\r\n1, 2.5,10\r\n3,4,9\n\n5,6,10").unwrap();
        assert_eq!((table.width(), &table.labels[..]), (2, &[1, 0, 1][..]));
        assert_eq!(table.classes, ["9", "10"]);
        assert_eq!(table.rows.to_vec(), [1.0, 2.5, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn compressed_files_read_alike() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(b"1,2,a\n3,4,b\n").unwrap();
        let (packed, plain) = (
            load("a.csv.gz", &encoder.finish().unwrap()).unwrap(),
            load("a.csv", b"1,2,a\n3,4,b\n").unwrap(),
        );
        assert_eq!((packed.rows.to_vec(), packed.labels), (plain.rows.to_vec(), plain.labels));
    }

    #[test]
    fn errors_name_file_line_and_column() {
        for (content, expected) in [
            ("1,2,a\n1,x,a\n", "a.csv:2: column 2 is \"x\", not a number"),
            ("1,2,a\n1,NaN,a\n", "a.csv:2: column 2 is \"NaN\", not a finite number"),
            ("1,2,a\n\n1,a\n", "a.csv:3: 2 columns, but the lines before have 3"),
            ("1,2,a\n1,2,\n", "a.csv:2: the label is empty"),
            ("1\n", "a.csv:1: expected inputs and a label, separated by commas"),
        ] {
            let message = load("a.csv", content.as_bytes()).unwrap_err().to_string();
            assert!(message.ends_with(expected), "{message}");
        }
    }

    #[test]
    fn a_damaged_archive_is_an_error() {
        let message = load("a.csv.gz", b"not gzip").unwrap_err().to_string();
        assert!(message.starts_with("cannot read "), "{message}");
    }
}
