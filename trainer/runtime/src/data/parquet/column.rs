//! The values of one column in one row group.

use parquet::basic::{ConvertedType, LogicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::schema::types::ColumnDescriptor;

/// Rows that are decoded at once.
const BATCH: usize = 1 << 14;

/// Numbers of a column: so many in each row.
#[derive(Debug, PartialEq)]
pub(super) struct Numbers {
    pub(super) width: usize,
    pub(super) values: Vec<f32>,
}

/// The numbers of a column, lists laid flat.
pub(super) fn numbers(
    reader: ColumnReader,
    column: &ColumnDescriptor,
    rows: usize,
) -> Result<Numbers, String> {
    let unit = match column.logical_type_ref() {
        Some(LogicalType::Decimal(decimal)) => 0.1_f64.powi(decimal.scale),
        _ => 1.0,
    };
    let is_unsigned = is_unsigned(column);
    match reader {
        ColumnReader::BoolColumnReader(reader) => {
            converted(reader, column, rows, |value| f32::from(u8::from(value)))
        }
        ColumnReader::Int32ColumnReader(reader) if is_unsigned => {
            converted(reader, column, rows, |value| value.cast_unsigned() as f32)
        }
        ColumnReader::Int32ColumnReader(reader) => {
            converted(reader, column, rows, |value| (f64::from(value) * unit) as f32)
        }
        ColumnReader::Int64ColumnReader(reader) if is_unsigned => {
            converted(reader, column, rows, |value| value.cast_unsigned() as f32)
        }
        ColumnReader::Int64ColumnReader(reader) => {
            converted(reader, column, rows, |value| (value as f64 * unit) as f32)
        }
        ColumnReader::FloatColumnReader(reader) => converted(reader, column, rows, |value| value),
        ColumnReader::DoubleColumnReader(reader) => converted(reader, column, rows, |value| value as f32),
        ColumnReader::Int96ColumnReader(_)
        | ColumnReader::ByteArrayColumnReader(_)
        | ColumnReader::FixedLenByteArrayColumnReader(_) => {
            Err(format!("inputs must be numbers, not {}", column.physical_type()))
        }
    }
}

/// The label of every row, by its name.
pub(super) fn labels(
    reader: ColumnReader,
    column: &ColumnDescriptor,
    rows: usize,
    mut add: impl FnMut(&str),
) -> Result<(), String> {
    if column.max_rep_level() > 0 {
        return Err("a label must be one value, not a list".to_owned());
    }
    let is_decimal = matches!(column.logical_type_ref(), Some(LogicalType::Decimal(_)));
    let is_unsigned = is_unsigned(column);
    match reader {
        ColumnReader::BoolColumnReader(reader) => {
            let (values, _) = read(reader, column, rows)?;
            for value in values {
                add(if value { "true" } else { "false" });
            }
        }
        ColumnReader::Int32ColumnReader(reader) if !is_decimal => {
            for value in read(reader, column, rows)?.0 {
                let name = if is_unsigned { value.cast_unsigned().to_string() } else { value.to_string() };
                add(&name);
            }
        }
        ColumnReader::Int64ColumnReader(reader) if !is_decimal => {
            for value in read(reader, column, rows)?.0 {
                let name = if is_unsigned { value.cast_unsigned().to_string() } else { value.to_string() };
                add(&name);
            }
        }
        ColumnReader::ByteArrayColumnReader(reader) => {
            for (row, value) in read(reader, column, rows)?.0.iter().enumerate() {
                match std::str::from_utf8(value.data()) {
                    Ok("") => return Err(format!("row {row} is empty")),
                    Ok(name) => add(name),
                    Err(error) => return Err(format!("row {row} is not text: {error}")),
                }
            }
        }
        _ => {
            let kind = column.physical_type();
            return Err(format!(
                "labels must be text or whole numbers, not {kind}; --label names another column"
            ));
        }
    }
    Ok(())
}

fn is_unsigned(column: &ColumnDescriptor) -> bool {
    let unsigned =
        [ConvertedType::UINT_8, ConvertedType::UINT_16, ConvertedType::UINT_32, ConvertedType::UINT_64];
    match column.logical_type_ref() {
        Some(LogicalType::Integer(integer)) => !integer.is_signed,
        _ => unsigned.contains(&column.converted_type()),
    }
}

fn converted<T: DataType>(
    reader: ColumnReaderImpl<T>,
    column: &ColumnDescriptor,
    rows: usize,
    convert: impl Fn(T::T) -> f32,
) -> Result<Numbers, String> {
    let (values, width) = read(reader, column, rows)?;
    let values: Vec<f32> = values.into_iter().map(convert).collect();
    match values.iter().position(|value| !value.is_finite()) {
        Some(place) => {
            Err(format!("row {} holds {}, not a finite number", place / width.max(1), values[place]))
        }
        None => Ok(Numbers { width, values }),
    }
}

/// All values, and how many there are in each row.
fn read<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    column: &ColumnDescriptor,
    rows: usize,
) -> Result<(Vec<T::T>, usize), String> {
    let is_list = column.max_rep_level() > 0;
    let mut width = if is_list { None } else { Some(1) };
    let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
    let mut done = 0;
    while done < rows {
        defined.clear();
        repeated.clear();
        let wanted = BATCH.min(rows - done);
        let read = reader.read_records(wanted, Some(&mut defined), Some(&mut repeated), &mut values);
        let (records, _, _) = read.map_err(|error| error.to_string())?;
        if records == 0 {
            return Err(format!("it ends after {done} of {rows} rows"));
        }
        if let Some(place) = defined.iter().position(|level| *level < column.max_def_level()) {
            let row = if is_list { starts(&repeated[..=place]).count() - 1 } else { place };
            return Err(format!(
                "row {} is null, or holds no value; fill it or leave the row out",
                done + row
            ));
        }
        if is_list {
            let begins: Vec<usize> = starts(&repeated).chain([repeated.len()]).collect();
            for (row, pair) in begins.windows(2).enumerate() {
                let (found, wanted) = (pair[1] - pair[0], *width.get_or_insert(pair[1] - pair[0]));
                if found != wanted {
                    let row = done + row;
                    return Err(format!("row {row} holds {found} values, but the rows before {wanted}"));
                }
            }
        }
        done += records;
    }
    let width = width.unwrap_or(0);
    if values.len() != rows * width {
        return Err(format!("{} values do not fill {rows} rows of {width}", values.len()));
    }
    Ok((values, width))
}

/// Where rows begin.
fn starts(repeated: &[i16]) -> impl Iterator<Item = usize> {
    repeated.iter().enumerate().filter(|(_, level)| **level == 0).map(|(place, _)| place)
}
