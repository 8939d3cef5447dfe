//! Samples: labelled ones from tables and images, and sequences of tokens.

mod classes;
mod csv;
mod idx;
mod parquet;
mod rows;
mod table;
mod tokens;

use std::io;
use std::path::{Path, PathBuf};

use crate::model::Input;
pub(crate) use rows::Room;
pub(crate) use table::{Scaling, Table};
pub(crate) use tokens::Tokens;

/// Data that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A line of a file is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A column of a Parquet file is wrong.
    #[error("{}: row group {row_group}, column {column:?}: {problem}", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The row group, from 0; rows are counted within it.
        row_group: usize,
        /// The column.
        column: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Samples that are too many for the memory cannot be kept.
    #[error(
        "cannot keep samples in a file in {}: {source}; TMPDIR names another folder, --data-memory allows more memory",
        folder.display()
    )]
    Keep {
        /// The folder.
        folder: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// There is nothing to train on.
    #[error("{} holds no {what}", path.display())]
    Empty {
        /// The file or folder.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// A file is not of its format.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// The file that `path` is, or the files of the folder that it is whose name is `wanted`, in the order of their names.
fn files(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    if !fs_err::metadata(path).map_err(read)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs_err::read_dir(path).map_err(read)? {
        let file = entry.map_err(read)?.path();
        if wanted(&file_name(&file)) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a file's name ends in one of the extensions, as they are written.
fn ends_in(name: &str, extensions: &[&str]) -> bool {
    extensions.iter().any(|extension| name.strip_suffix(extension).is_some_and(|stem| stem.ends_with('.')))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What a training learns from.
#[derive(Debug)]
pub(crate) enum Dataset {
    /// Labelled samples.
    Table(Table),
    /// Sequences of tokens; each token's label is the next one.
    Tokens(Tokens),
}

/// Samples in the form that a model takes. Kept between batches, so that its memory is reused.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    numbers: Vec<f32>,
    tokens: Vec<u32>,
    labels: Vec<u32>,
    shape: Vec<usize>,
}

impl Batch {
    /// What enters the model.
    pub(crate) fn input(&self) -> Input<'_> {
        if self.tokens.is_empty() {
            return Input::Numbers { values: &self.numbers, shape: &self.shape };
        }
        Input::Tokens { tokens: &self.tokens, length: self.shape.first().copied().unwrap_or(1) }
    }

    /// One label for each row of scores.
    pub(crate) fn labels(&self) -> &[u32] {
        &self.labels
    }
}

impl Dataset {
    /// A checksum of what this rank reads.
    pub(crate) fn checksum(&self) -> Result<u64, Error> {
        match self {
            Self::Table(table) => Ok(table.checksum()),
            Self::Tokens(tokens) => tokens.checksum(),
        }
    }

    /// Training and test samples: the same on every rank with the same seed.
    pub(crate) fn split(&self, test_fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
        match self {
            Self::Table(table) => table.split(test_fraction, seed),
            // Neighbouring sequences are alike, so the test takes the end and not some from everywhere.
            Self::Tokens(tokens) => {
                let mut training: Vec<usize> = (0..tokens.len()).collect();
                let test = (tokens.len() as f64 * test_fraction).round() as usize;
                let test = training.split_off(tokens.len() - test);
                (training, test)
            }
        }
    }

    /// Fills a batch with samples; those of a table take the shape of one sample.
    pub(crate) fn gather(&self, samples: &[usize], shape: &[usize], batch: &mut Batch) -> Result<(), Error> {
        batch.shape.clear();
        batch.shape.extend_from_slice(shape);
        match self {
            Self::Table(table) => table.gather(samples, &mut batch.numbers, &mut batch.labels),
            Self::Tokens(tokens) => tokens.gather(samples, &mut batch.tokens, &mut batch.labels),
        }
    }
}
