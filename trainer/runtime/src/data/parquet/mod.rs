//! Labelled samples in Parquet files: columns of numbers, or of lists of numbers, and one of labels.

mod column;
mod pages;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use parquet::column::reader::get_column_reader;
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;

use super::classes::Classes;
use super::rows::{Room, Writer};
use super::{Error, Table};
use column::Numbers;
use pages::Checked;

/// What pandas calls the columns that keep an index, which is no input.
const INDEX: &str = "__index_level_";

/// Whether a file of this name is in this format.
pub(super) fn is_parquet(name: &str) -> bool {
    super::ends_in(name, &["parquet"])
}

/// Reads files of equal columns. The label is the column of that name, else the last; all other columns are inputs.
/// None where there are no rows.
pub(super) fn load(files: &[PathBuf], label: Option<&str>, room: &Room) -> Result<Option<Table>, Error> {
    let mut samples: Option<Samples<'_>> = None;
    for path in files {
        let read = |source| Error::Read { path: path.clone(), source };
        let file = fs_err::File::open(path).map_err(read)?.into_file();
        let length = file.metadata().map_err(read)?.len();
        let reader = SerializedFileReader::new(file).map_err(|error| wrong(path, error.to_string()))?;
        let columns = Columns::of(reader.metadata().file_metadata().schema_descr(), path, label)?;
        let samples = match &mut samples {
            Some(samples) if samples.columns != columns => {
                let first = files[0].display();
                return Err(wrong(path, format!("its columns differ from those of {first}")));
            }
            Some(samples) => samples,
            None => samples.insert(Samples::new(columns, room)),
        };
        for row_group in 0..reader.num_row_groups() {
            check_places(reader.metadata().row_group(row_group), length)
                .map_err(|problem| wrong(path, format!("row group {row_group}: {problem}")))?;
            samples.read(path, &reader, row_group)?;
        }
    }
    samples.map_or(Ok(None), Samples::into_table)
}

/// Whether the file can hold the columns where its end says that they are; the library takes that for granted.
fn check_places(row_group: &RowGroupMetaData, length: u64) -> Result<(), String> {
    for column in row_group.columns() {
        let begins = [Some(column.data_page_offset()), column.dictionary_page_offset()];
        let fits = begins.into_iter().flatten().all(|begin| {
            let (begin, size) = (u64::try_from(begin), u64::try_from(column.compressed_size()));
            matches!((begin, size), (Ok(begin), Ok(size)) if begin.saturating_add(size) <= length)
        });
        if !fits || column.num_values() < 0 {
            return Err(format!(
                "column {:?} lies outside the file: it is damaged",
                column.column_path().string()
            ));
        }
    }
    Ok(())
}

fn wrong(path: &Path, problem: impl Into<String>) -> Error {
    Error::Format { path: path.to_owned(), problem: problem.into() }
}

/// Which columns of a file are what, by their places and names.
#[derive(Debug, PartialEq)]
struct Columns {
    inputs: Vec<(usize, String)>,
    label: (usize, String),
}

impl Columns {
    fn of(schema: &SchemaDescriptor, path: &Path, label: Option<&str>) -> Result<Self, Error> {
        let mut inputs: Vec<(usize, String)> = Vec::new();
        for (place, column) in schema.columns().iter().enumerate() {
            let root = schema.get_column_root(place).name();
            let parts = column.path().parts();
            // Lists have parts of their own, which say nothing; members of a struct have names.
            let name = if column.max_rep_level() > 0 { root.to_owned() } else { parts.join(".") };
            if !root.starts_with(INDEX) {
                inputs.push((place, name));
            }
        }
        let place = match label {
            Some(label) => inputs.iter().position(|(_, name)| name == label),
            None => inputs.len().checked_sub(1),
        };
        let Some(place) = place else {
            let names: Vec<&str> = inputs.iter().map(|(_, name)| name.as_str()).collect();
            let names = names.join(", ");
            return Err(wrong(
                path,
                match label {
                    Some(label) => format!("it has no column {label:?} for --label, but {names}"),
                    None => "it has no columns".to_owned(),
                },
            ));
        };
        let label = inputs.remove(place);
        if inputs.is_empty() {
            return Err(wrong(path, format!("it has no column beside that of the labels, {:?}", label.1)));
        }
        Ok(Self { inputs, label })
    }
}

/// The rows read so far.
struct Samples<'a> {
    columns: Columns,
    /// How many values each column of inputs has in a row.
    widths: Option<Vec<usize>>,
    inputs: Writer<'a>,
    classes: Classes,
}

impl<'a> Samples<'a> {
    fn new(columns: Columns, room: &'a Room) -> Self {
        Self { columns, widths: None, inputs: Writer::new(room), classes: Classes::default() }
    }

    /// Adds the rows of a row group.
    fn read(
        &mut self,
        path: &Path,
        file: &SerializedFileReader<std::fs::File>,
        row_group: usize,
    ) -> Result<(), Error> {
        let Self { columns, widths, inputs, classes } = self;
        let failed = |column: &str, problem: String| Error::Column {
            path: path.to_owned(),
            row_group,
            column: column.to_owned(),
            problem,
        };
        let reader = file.get_row_group(row_group);
        let reader = reader.map_err(|error| wrong(path, format!("row group {row_group}: {error}")))?;
        let schema = file.metadata().file_metadata().schema_descr();
        let rows = usize::try_from(reader.metadata().num_rows());
        let rows = rows.map_err(|error| wrong(path, format!("row group {row_group}: {error}")))?;
        if rows == 0 {
            return Ok(());
        }
        let open = |place: usize| {
            let column = schema.column(place);
            let pages = Box::new(Checked::new(reader.get_column_page_reader(place)?, &column));
            Ok::<_, ParquetError>(get_column_reader(column, pages))
        };
        let mut parts: Vec<Numbers> = Vec::new();
        for (number, (place, name)) in columns.inputs.iter().enumerate() {
            let column = open(*place).map_err(|error| failed(name, error.to_string()))?;
            let part = column::numbers(column, &schema.column(*place), rows);
            let part = part.map_err(|problem| failed(name, problem))?;
            if let Some(wanted) = widths.as_ref().map(|widths| widths[number])
                && wanted != part.width
            {
                let problem = format!("its rows hold {} values, but those before {wanted}", part.width);
                return Err(failed(name, problem));
            }
            parts.push(part);
        }
        widths.get_or_insert_with(|| parts.iter().map(|part| part.width).collect());
        let (place, name) = &columns.label;
        let column = open(*place).map_err(|error| failed(name, error.to_string()))?;
        column::labels(column, &schema.column(*place), rows, |name| classes.add(name))
            .map_err(|problem| failed(name, problem))?;
        let mut values = Vec::new();
        for row in 0..rows {
            values.clear();
            for part in &parts {
                values.extend_from_slice(&part.values[row * part.width..(row + 1) * part.width]);
            }
            inputs.add(&values)?;
        }
        Ok(())
    }

    fn into_table(self) -> Result<Option<Table>, Error> {
        let rows = self.inputs.finish()?;
        Ok((rows.len() > 0).then(|| Table::new(rows, None, self.classes.finish())))
    }
}
