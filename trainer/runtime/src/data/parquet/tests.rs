use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, FloatType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;

use super::*;

/// What is put into a column: values, and where they are optional or repeated the levels.
enum Values<'a> {
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    Float(&'a [f32], Option<(&'a [i16], &'a [i16])>),
    Double(&'a [f64], Option<&'a [i16]>),
    Text(&'a [&'a str]),
}

fn add<W: std::io::Write + Send>(group: &mut SerializedRowGroupWriter<'_, W>, values: &Values<'_>) {
    let mut column = group.next_column().unwrap().unwrap();
    match values {
        Values::Int32(values) => column.typed::<Int32Type>().write_batch(values, None, None),
        Values::Int64(values) => column.typed::<Int64Type>().write_batch(values, None, None),
        Values::Float(values, levels) => {
            let (defined, repeated) = levels.unzip();
            column.typed::<FloatType>().write_batch(values, defined, repeated)
        }
        Values::Double(values, defined) => column.typed::<DoubleType>().write_batch(values, *defined, None),
        Values::Text(values) => {
            let values: Vec<ByteArray> = values.iter().map(|text| ByteArray::from(*text)).collect();
            column.typed::<ByteArrayType>().write_batch(&values, None, None)
        }
    }
    .unwrap();
    column.close().unwrap();
}

fn write(path: &Path, schema: &str, compression: Compression, row_groups: &[&[Values<'_>]]) {
    let schema = Arc::new(parse_message_type(&format!("message samples {{ {schema} }}")).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let file = fs_err::File::create(path).unwrap().into_file();
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    for columns in row_groups {
        let mut group = writer.next_row_group().unwrap();
        columns.iter().for_each(|values| add(&mut group, values));
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// Two row groups of a number, a list of two numbers and a text.
fn example(path: &Path, compression: Compression) {
    let schema = "REQUIRED INT32 width; REQUIRED GROUP pixels (LIST) { REPEATED GROUP list { \
                  REQUIRED FLOAT element; } } REQUIRED BYTE_ARRAY kind (UTF8);";
    let levels = (&[1, 1, 1, 1][..], &[0, 1, 0, 1][..]);
    write(
        path,
        schema,
        compression,
        &[
            &[
                Values::Int32(&[1, -2]),
                Values::Float(&[0.5, 1.5, 2.5, 3.5], Some(levels)),
                Values::Text(&["b", "a"]),
            ],
            &[
                Values::Int32(&[3]),
                Values::Float(&[4.5, 5.5], Some((&levels.0[..2], &levels.1[..2]))),
                Values::Text(&["c"]),
            ],
        ],
    );
}

fn codecs() -> [Compression; 4] {
    [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(ZstdLevel::default()),
        Compression::GZIP(parquet::basic::GzipLevel::default()),
    ]
}

#[test]
fn lists_are_laid_flat_beside_other_columns_in_every_compression() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    for compression in codecs() {
        example(&path, compression);
        let table = Table::load(&path, None, &Room::ample()).unwrap();
        assert_eq!((table.width(), table.shape), (3, None));
        assert_eq!(table.rows.to_vec(), [1.0, 0.5, 1.5, -2.0, 2.5, 3.5, 3.0, 4.5, 5.5]);
        assert_eq!((&table.labels[..], &table.classes.concat()[..]), (&[1, 0, 2][..], "abc"));
    }
}

#[test]
fn any_column_can_be_the_label_and_a_folder_is_read_in_the_order_of_names() {
    let folder = tempfile::tempdir().unwrap();
    let schema = "REQUIRED INT64 class (UINT_64); REQUIRED DOUBLE x; REQUIRED INT32 price (DECIMAL(6, 2)); \
                  REQUIRED INT64 __index_level_0__;";
    let write = |name: &str, class: i64, x: f64| {
        let values =
            [Values::Int64(&[class]), Values::Double(&[x], None), Values::Int32(&[125]), Values::Int64(&[7])];
        write(&folder.path().join(name), schema, Compression::SNAPPY, &[&values]);
    };
    write("b.parquet", 10, 1.0);
    write("a.parquet", 9, 2.0);
    write("c.parquet", -1, 3.0);
    let table = Table::load(folder.path(), Some("class"), &Room::ample()).unwrap();
    assert_eq!(table.rows.to_vec(), [2.0, 1.25, 1.0, 1.25, 3.0, 1.25]);
    assert_eq!(table.labels, [0, 1, 2]);
    assert_eq!(table.classes, ["9", "10", "18446744073709551615"]);
    let other = "REQUIRED INT64 class; REQUIRED DOUBLE y;";
    let values = [Values::Int64(&[1]), Values::Double(&[1.0], None)];
    super::tests::write(&folder.path().join("d.parquet"), other, Compression::SNAPPY, &[&values]);
    let message = Table::load(folder.path(), Some("class"), &Room::ample()).unwrap_err().to_string();
    assert!(message.contains("d.parquet: its columns differ from those of "), "{message}");
    fs_err::write(folder.path().join("e.csv"), "1,2\n").unwrap();
    let message = Table::load(folder.path(), None, &Room::ample()).unwrap_err().to_string();
    assert!(message.ends_with("e.csv: Parquet files cannot be mixed with others"), "{message}");
}

#[test]
fn errors_name_file_row_group_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let check = |schema: &str, row_groups: &[&[Values<'_>]], label: Option<&str>, expected: &str| {
        write(&path, schema, Compression::SNAPPY, row_groups);
        let message = Table::load(&path, label, &Room::ample()).unwrap_err().to_string();
        assert_eq!(message, format!("{}: {expected}", path.display()));
    };
    let plain = "REQUIRED DOUBLE x; REQUIRED BYTE_ARRAY kind (UTF8);";
    let rows: &[Values<'_>] = &[Values::Double(&[1.0], None), Values::Text(&["a"])];
    let bad: &[Values<'_>] = &[Values::Double(&[1.0, f64::NAN], None), Values::Text(&["a", "b"])];
    check(plain, &[rows, bad], None, "row group 1, column \"x\": row 1 holds NaN, not a finite number");
    check(
        "OPTIONAL DOUBLE x; REQUIRED BYTE_ARRAY kind (UTF8);",
        &[&[Values::Double(&[1.0, 2.0], Some(&[1, 1, 0])), Values::Text(&["a", "b", "c"])]],
        None,
        "row group 0, column \"x\": row 2 is null, or holds no value; fill it or leave the row out",
    );
    let lists = "REQUIRED GROUP pixels (LIST) { REPEATED GROUP list { REQUIRED FLOAT element; } } REQUIRED INT32 kind;";
    check(
        lists,
        &[&[Values::Float(&[1.0, 2.0, 3.0], Some((&[1, 1, 1], &[0, 1, 0]))), Values::Int32(&[1, 2])]],
        None,
        "row group 0, column \"pixels\": row 1 holds 1 values, but the rows before 2",
    );
    check(
        lists,
        &[&[Values::Float(&[1.0, 2.0], Some((&[1, 1, 0], &[0, 1, 0]))), Values::Int32(&[1, 2])]],
        None,
        "row group 0, column \"pixels\": row 1 is null, or holds no value; fill it or leave the row out",
    );
    check(
        lists,
        &[&[Values::Float(&[1.0], Some((&[1], &[0]))), Values::Int32(&[1])]],
        Some("pixels"),
        "row group 0, column \"pixels\": a label must be one value, not a list",
    );
    check(plain, &[rows], Some("x"), "row group 0, column \"kind\": inputs must be numbers, not BYTE_ARRAY");
    check(
        "REQUIRED INT32 a; REQUIRED DOUBLE x;",
        &[&[Values::Int32(&[1]), Values::Double(&[1.0], None)]],
        None,
        "row group 0, column \"x\": labels must be text or whole numbers, not DOUBLE; --label names another column",
    );
    check(plain, &[rows], Some("class"), "it has no column \"class\" for --label, but x, kind");
    check(
        "REQUIRED INT32 a;",
        &[&[Values::Int32(&[1])]],
        None,
        "it has no column beside that of the labels, \"a\"",
    );
    write(&path, plain, Compression::SNAPPY, &[]);
    let message = Table::load(&path, None, &Room::ample()).unwrap_err().to_string();
    assert!(message.ends_with("a.parquet holds no samples"), "{message}");
    let csv = folder.path().join("a.csv");
    fs_err::write(&csv, "1,2\n").unwrap();
    let message = Table::load(&csv, Some("x"), &Room::ample()).unwrap_err().to_string();
    assert!(message.ends_with("a.csv: --label is for Parquet files; here the last column is the label"));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), framed: bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let length = (bytes.len() as u32).to_le_bytes();
        let bytes = if framed { [b"PAR1", &bytes[..], &length, b"PAR1"].concat() } else { bytes };
        fs_err::write(&path, &bytes).unwrap();
        prop_assert!(Table::load(&path, None, &Room::ample()).is_err());
    }

    /// Columns of any width and rows in any division into row groups come back as they were.
    #[test]
    fn what_was_written_is_read(
        rows in proptest::collection::vec((any::<i32>(), 0..5_i32), 1..40), at in 0..40_usize, snappy: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let (x, kind): (Vec<i32>, Vec<i32>) = rows.iter().copied().unzip();
        let at = at.min(rows.len());
        let (first, second) =
            ([Values::Int32(&x[..at]), Values::Int32(&kind[..at])], [Values::Int32(&x[at..]), Values::Int32(&kind[at..])]);
        let compression = if snappy { Compression::SNAPPY } else { Compression::UNCOMPRESSED };
        write(&path, "REQUIRED INT32 x; REQUIRED INT32 kind;", compression, &[&first, &second]);
        let table = Table::load(&path, None, &Room::ample()).unwrap();
        prop_assert_eq!(table.rows.to_vec(), x.iter().map(|x| *x as f32).collect::<Vec<_>>());
        let classes: Vec<i32> =
            table.labels.iter().map(|label| table.classes[*label as usize].parse().unwrap()).collect();
        prop_assert_eq!(classes, kind);
    }

    #[test]
    fn a_damaged_file_is_read_or_refused(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), codec in 0..4_usize,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        example(&path, codecs()[codec]);
        let mut bytes = fs_err::read(&path).unwrap();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        fs_err::write(&path, &bytes).unwrap();
        // Damage to a value itself goes unseen.
        let _ = Table::load(&path, None, &Room::ample());
    }

    #[test]
    fn a_file_that_was_cut_short_is_refused(place: prop::sample::Index, snappy: bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        example(&path, if snappy { Compression::SNAPPY } else { Compression::UNCOMPRESSED });
        let bytes = fs_err::read(&path).unwrap();
        fs_err::write(&path, &bytes[..place.index(bytes.len())]).unwrap();
        prop_assert!(Table::load(&path, None, &Room::ample()).is_err());
    }
}

#[test]
fn columns_outside_the_file_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    example(&path, Compression::SNAPPY);
    let file = fs_err::File::open(&path).unwrap().into_file();
    let length = file.metadata().unwrap().len();
    let group = SerializedFileReader::new(file).unwrap().metadata().row_group(0).clone();
    assert_eq!(check_places(&group, length), Ok(()));
    assert!(check_places(&group, 20).unwrap_err().starts_with("column "));
    let moved = |place: i64, size: i64| {
        let mut columns = group.columns().to_vec();
        let column = columns[0].clone().into_builder();
        let column = column.set_dictionary_page_offset(Some(place)).set_total_compressed_size(size);
        columns[0] = column.build().unwrap();
        let group = group.clone().into_builder().set_column_metadata(columns).build().unwrap();
        check_places(&group, length)
    };
    assert_eq!(moved(4, 1), Ok(()));
    for (place, size) in [(-4, 1), (4, -1), (4, i64::MAX), (i64::MAX, 4)] {
        let message = moved(place, size).unwrap_err();
        assert_eq!(message, "column \"width\" lies outside the file: it is damaged");
    }
}

#[test]
fn a_page_without_its_dictionary_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    example(&path, Compression::SNAPPY);
    let file = SerializedFileReader::new(fs_err::File::open(&path).unwrap().into_file()).unwrap();
    let group = file.get_row_group(0).unwrap();
    let column = file.metadata().file_metadata().schema_descr().column(2);
    let mut whole = Checked::new(group.get_column_page_reader(2).unwrap(), &column);
    assert!(whole.next().unwrap().unwrap().is_dictionary_page());
    assert!(whole.next().unwrap().is_ok());
    let mut pages = group.get_column_page_reader(2).unwrap();
    pages.next().unwrap().unwrap();
    let error = Checked::new(pages, &column).next().unwrap().unwrap_err();
    assert!(error.to_string().ends_with("a page needs a dictionary that is not there"), "{error}");
}

/// Texts that are not in a dictionary, of which some are null.
#[test]
fn texts_that_end_too_early_are_refused_and_nulls_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let schema = "REQUIRED INT32 x; OPTIONAL BYTE_ARRAY kind (UTF8);";
    let schema = Arc::new(parse_message_type(&format!("message samples {{ {schema} }}")).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_dictionary_enabled(false).build());
    let file = fs_err::File::create(&path).unwrap().into_file();
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    add(&mut group, &Values::Int32(&[1, 2, 3]));
    let mut column = group.next_column().unwrap().unwrap();
    let texts = ["first", "third"].map(ByteArray::from);
    column.typed::<ByteArrayType>().write_batch(&texts, Some(&[1, 0, 1]), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    let message = Table::load(&path, None, &Room::ample()).unwrap_err().to_string();
    assert!(message.ends_with("row 1 is null, or holds no value; fill it or leave the row out"), "{message}");
    let mut bytes = fs_err::read(&path).unwrap();
    let place = bytes.windows(5).position(|window| window == b"third").unwrap();
    bytes[place - 4] = 200;
    fs_err::write(&path, &bytes).unwrap();
    let message = Table::load(&path, None, &Room::ample()).unwrap_err().to_string();
    assert!(message.contains("column \"kind\": "), "{message}");
    assert!(message.ends_with("a page ends in the middle of a value: it is damaged"), "{message}");
}
