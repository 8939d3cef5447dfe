//! Rows of numbers that are read in any order: in memory or, where there is no room for them, in a file without a name.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Error;
use crate::checksum::Checksum;

/// Bytes that are written to the file, or read from it one behind the other, at once.
const PIECE: usize = 1 << 20;

/// Where a table's rows may be kept.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    /// Bytes of them that may be in memory; if there are more, all are in a file.
    pub(crate) memory: usize,
    /// The folder of that file.
    pub(crate) folder: PathBuf,
}

/// Rows of equal width, while they come in.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    room: &'a Room,
    width: usize,
    count: usize,
    checksum: Checksum,
    /// All of them, or those that the file does not have yet.
    memory: Vec<f32>,
    file: Option<File>,
}

/// Rows of equal width.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) width: usize,
    count: usize,
    /// Of all values.
    pub(super) checksum: Checksum,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Memory(Vec<f32>),
    File { file: File, folder: PathBuf },
}

fn unkept(folder: &Path) -> impl FnOnce(io::Error) -> Error {
    |source| Error::Keep { folder: folder.to_owned(), source }
}

impl<'a> Writer<'a> {
    pub(super) fn new(room: &'a Room) -> Self {
        Self { room, width: 0, count: 0, checksum: Checksum::default(), memory: Vec::new(), file: None }
    }

    /// The width of the rows so far; none if there are none.
    pub(super) fn width(&self) -> Option<usize> {
        (self.count > 0).then_some(self.width)
    }

    /// Adds a row, of the width of those before.
    pub(super) fn add(&mut self, row: &[f32]) -> Result<(), Error> {
        debug_assert!(self.width().is_none_or(|width| width == row.len()), "whoever reads them checks that");
        self.width = row.len();
        self.count += 1;
        for value in row {
            self.checksum.add(u64::from(value.to_bits()));
        }
        self.memory.extend_from_slice(row);
        let most = if self.file.is_some() { PIECE } else { self.room.memory };
        if size_of_val(&self.memory[..]) > most {
            self.write().map_err(unkept(&self.room.folder))?;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let is_first = self.file.is_none();
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile_in(&self.room.folder)?),
        };
        file.write_all(bytemuck::cast_slice(&self.memory))?;
        if is_first {
            self.memory = Vec::new();
        }
        self.memory.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Rows, Error> {
        if self.file.is_some() {
            self.write().map_err(unkept(&self.room.folder))?;
        }
        let Self { room, width, count, checksum, memory, file } = self;
        let place = match file {
            Some(file) => Place::File { file, folder: room.folder.clone() },
            None => Place::Memory(memory),
        };
        Ok(Rows { width, count, checksum, place })
    }
}

impl Rows {
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    #[cfg(test)]
    fn is_in_file(&self) -> bool {
        matches!(self.place, Place::File { .. })
    }

    /// Reads rows behind each other; `into` has room for just so many.
    pub(super) fn read(&self, first: usize, into: &mut [f32]) -> Result<(), Error> {
        let begin = first * self.width;
        match &self.place {
            Place::Memory(values) => into.copy_from_slice(&values[begin..begin + into.len()]),
            Place::File { file, folder } => {
                let bytes = bytemuck::cast_slice_mut(into);
                let at = (begin * size_of::<f32>()) as u64;
                file.read_exact_at(bytes, at).map_err(unkept(folder))?;
            }
        }
        Ok(())
    }

    /// Shows all rows, in their order.
    pub(super) fn each(&self, mut see: impl FnMut(usize, &[f32])) -> Result<(), Error> {
        let at_once = (PIECE / size_of::<f32>()).div_ceil(self.width.max(1));
        let mut piece = Vec::new();
        for first in (0..self.count).step_by(at_once) {
            let rows = at_once.min(self.count - first);
            piece.resize(rows * self.width, 0.0);
            self.read(first, &mut piece)?;
            for row in 0..rows {
                see(first + row, &piece[row * self.width..(row + 1) * self.width]);
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn to_vec(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.count * self.width];
        self.read(0, &mut all).unwrap();
        all
    }
}

#[cfg(test)]
impl Room {
    /// All in memory.
    pub(super) fn ample() -> Self {
        Self { memory: usize::MAX, folder: std::env::temp_dir() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(room: &Room, rows: &[Vec<f32>]) -> Rows {
        let mut writer = Writer::new(room);
        for row in rows {
            writer.add(row).unwrap();
        }
        writer.finish().unwrap()
    }

    proptest! {
        #[test]
        fn rows_are_the_same_wherever_they_are_kept(
            rows in (1..5_usize).prop_flat_map(|width| {
                prop::collection::vec(prop::collection::vec(-1e3_f32..1e3, width), 1..40)
            }),
            memory in 0..400_usize,
            first: prop::sample::Index,
        ) {
            let room = Room { memory, folder: std::env::temp_dir() };
            let (here, there) = (kept(&Room::ample(), &rows), kept(&room, &rows));
            let all = rows.concat();
            prop_assert_eq!(there.is_in_file(), size_of_val(&all[..]) > memory);
            prop_assert_eq!((here.to_vec(), there.to_vec()), (all.clone(), all));
            prop_assert_eq!(here.checksum, there.checksum);
            let first = first.index(rows.len());
            let mut tail = vec![0.0; (rows.len() - first) * there.width];
            there.read(first, &mut tail).unwrap();
            prop_assert_eq!(tail, rows[first..].concat());
            let mut seen = Vec::new();
            there.each(|place, row| seen.push((place, row.to_vec()))).unwrap();
            prop_assert_eq!(seen, rows.into_iter().enumerate().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_file_is_written_in_pieces_and_leaves_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let room = Room { memory: 1 << 10, folder: folder.path().to_owned() };
        let mut writer = Writer::new(&room);
        let row: Vec<f32> = (0..1_000).map(|value| value as f32).collect();
        for _ in 0..1_000 {
            writer.add(&row).unwrap();
            assert!(writer.memory.capacity() <= 4 * PIECE, "what is not written yet is small");
        }
        let rows = writer.finish().unwrap();
        let mut last = vec![0.0; 1_000];
        rows.read(999, &mut last).unwrap();
        assert_eq!(last, row);
        assert!(rows.is_in_file() && fs_err::read_dir(folder.path()).unwrap().next().is_none());
    }

    #[test]
    fn a_folder_without_room_is_named() {
        let room = Room { memory: 0, folder: "/dev/null".into() };
        let message = Writer::new(&room).add(&[1.0]).unwrap_err().to_string();
        assert!(message.starts_with("cannot keep samples in a file in /dev/null: "), "{message}");
        assert!(message.contains("--data-memory"), "{message}");
    }
}
