//! TensorBoard's event files: records with checksums, each a protobuf `Event`.
//!
//! The messages are TensorFlow's `event.proto` and `summary.proto`, with the fields that scalars need; records are framed
//! as its `record_writer.h` says.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crc_fast::CrcAlgorithm;
use fs_err::OpenOptions;
use prost::Message;

/// What the first event of a file says.
const VERSION: &str = "brain.Event:2";
/// `SessionLog.SessionStatus.START`.
const START: i32 = 1;
/// Files of one second and host that are told apart.
const MOST_FILES: u32 = 1000;

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    // A field of a oneof upstream, so zero is written too.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// A file of events that grows.
#[derive(Debug)]
pub(crate) struct EventFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventFile {
    /// Begins a file in `folder`, which is made if it is not there.
    pub(crate) fn create(folder: &Path, host: &str) -> io::Result<Self> {
        fs_err::create_dir_all(folder)?;
        let host: String =
            host.chars().map(|c| if c == '/' || c.is_whitespace() { '-' } else { c }).collect();
        let name = format!("events.out.tfevents.{}.{host}", now() as u64);
        let mut path = folder.join(&name);
        for number in 1.. {
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    let mut events = Self { path, file: BufWriter::new(file.into_file()) };
                    events.write(0, What::FileVersion(VERSION.to_owned()))?;
                    return Ok(events);
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists && number < MOST_FILES => {
                    path = folder.join(format!("{name}.{number}"));
                }
                Err(error) => return Err(error),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds values of a step, which are in the file when this returns.
    pub(crate) fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> io::Result<()> {
        let value =
            |(tag, value): &(&str, f64)| Value { tag: (*tag).to_owned(), simple_value: Some(*value as f32) };
        self.write(step, What::Summary(Summary { value: scalars.iter().map(value).collect() }))
    }

    /// What other files of the folder say of later steps no longer holds: the training goes on after `step`.
    pub(crate) fn goes_on_after(&mut self, step: u64) -> io::Result<()> {
        self.write(step + 1, What::SessionLog(SessionLog { status: START }))
    }

    fn write(&mut self, step: u64, what: What) -> io::Result<()> {
        let event = Event { wall_time: now(), step: step.cast_signed(), what: Some(what) };
        self.file.write_all(&record(&event.encode_to_vec()))?;
        self.file.flush()
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// The length and its checksum, the data and its checksum, all little-endian.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let (of_length, of_data) = (masked_checksum(&length), masked_checksum(data));
    [&length, &of_length.to_le_bytes()[..], data, &of_data.to_le_bytes()].concat()
}

/// A checksum (CRC-32C, RFC 3720) of bytes that may hold checksums themselves, which is why it is masked.
fn masked_checksum(bytes: &[u8]) -> u32 {
    let checksum = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32;
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Read by hand and not by what wrote them.
    #[derive(Debug, Default, PartialEq)]
    struct Read {
        wall_time: f64,
        step: u64,
        version: String,
        status: u64,
        scalars: Vec<(String, f32)>,
    }

    /// CRC-32C bit by bit.
    fn checksum(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |mut sum, byte| {
            sum ^= u32::from(*byte);
            (0..8).for_each(|_| sum = (sum >> 1) ^ (0x82f6_3b78 * (sum & 1)));
            sum
        })
    }

    fn number(bytes: &mut &[u8]) -> u64 {
        let length = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let number =
            bytes[..length].iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f));
        *bytes = &bytes[length..];
        number
    }

    /// The fields of a message: number, and value or bytes.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, &[u8])> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = number(&mut bytes);
            let (value, length) = match key & 7 {
                0 => (number(&mut bytes), 0),
                1 => (0, 8),
                2 => (0, number(&mut bytes) as usize),
                5 => (0, 4),
                other => panic!("wire type {other}"),
            };
            found.push((key >> 3, value, &bytes[..length]));
            bytes = &bytes[length..];
        }
        found
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn read(mut bytes: &[u8]) -> Vec<Read> {
        let mut events = Vec::new();
        while !bytes.is_empty() {
            let mut take = |count: usize| {
                let (taken, rest) = bytes.split_at(count);
                bytes = rest;
                taken
            };
            let mask = |sum: u32| sum.rotate_right(15).wrapping_add(0xa282_ead8);
            let length = take(8);
            assert_eq!(take(4), mask(checksum(length)).to_le_bytes());
            let data = take(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            assert_eq!(take(4), mask(checksum(data)).to_le_bytes());
            let mut event = Read::default();
            for (field, value, bytes) in fields(data) {
                match field {
                    1 => event.wall_time = f64::from_le_bytes(bytes.try_into().unwrap()),
                    2 => event.step = value,
                    3 => event.version = text(bytes),
                    5 => {
                        for (_, _, value) in fields(bytes) {
                            let fields = fields(value);
                            assert_eq!((fields[0].0, fields[1].0, fields.len()), (1, 2, 2));
                            let scalar = f32::from_le_bytes(fields[1].2.try_into().unwrap());
                            event.scalars.push((text(fields[0].2), scalar));
                        }
                    }
                    7 => event.status = fields(bytes)[0].1,
                    other => panic!("field {other}"),
                }
            }
            events.push(event);
        }
        events
    }

    #[test]
    fn checksums_are_those_of_the_standard() {
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
        assert_eq!(masked_checksum(b"123456789"), 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }

    #[test]
    fn a_file_begins_with_its_version_and_two_of_one_second_differ() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs/digits");
        let mut first = EventFile::create(&runs, "digits-0").unwrap();
        let second = EventFile::create(&runs, "digits-0").unwrap();
        assert_ne!(first.path(), second.path());
        first.scalars(0, &[("loss", 0.0)]).unwrap();
        first.goes_on_after(40).unwrap();
        let name = first.path().file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("events.out.tfevents.") && name.ends_with(".digits-0"), "{name}");
        let events = read(&fs_err::read(first.path()).unwrap());
        assert_eq!((&*events[0].version, events[0].step), ("brain.Event:2", 0));
        assert!(events[0].wall_time > 1.7e9);
        assert_eq!(events[1].scalars, [("loss".to_owned(), 0.0)]);
        assert_eq!((events[2].step, events[2].status), (41, 1));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            steps in proptest::collection::vec(
                (0..u64::MAX >> 1, proptest::collection::vec(("\\PC{1,40}", any::<f32>()), 0..4)), 0..6
            )
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut file = EventFile::create(folder.path(), "a host/of its own").unwrap();
            for (step, scalars) in &steps {
                let scalars: Vec<(&str, f64)> =
                    scalars.iter().map(|(tag, value)| (&**tag, f64::from(*value))).collect();
                file.scalars(*step, &scalars).unwrap();
            }
            let events = read(&fs_err::read(file.path()).unwrap());
            prop_assert_eq!(events.len(), steps.len() + 1);
            for (event, (step, scalars)) in events[1..].iter().zip(&steps) {
                prop_assert_eq!(event.step, *step);
                prop_assert_eq!(event.scalars.len(), scalars.len());
                for ((tag, value), (wanted, wrote)) in event.scalars.iter().zip(scalars) {
                    prop_assert_eq!(tag, wanted);
                    prop_assert_eq!(value.to_bits(), wrote.to_bits());
                }
            }
        }
    }
}
