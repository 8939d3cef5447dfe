//! Images and labels in IDX files, the form of MNIST: big-endian sizes, then one byte a value.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::{Error, Table, file_name};

/// Largest file that is read, in bytes.
const LARGEST: u64 = 8 << 30;

/// Whether a file of this name holds images.
pub(super) fn is_images(name: &str) -> bool {
    name.trim_end_matches(".gz").ends_with("images-idx3-ubyte")
        || name.trim_end_matches(".gz").ends_with("images.idx3-ubyte")
}

/// Reads images and, from the file of the same name with `labels-idx1` for `images-idx3`, their labels.
pub(super) fn load(images: &Path) -> Result<Table, Error> {
    let (sizes, pixels) = read(images, 3)?;
    let name = file_name(images).replace("images-idx3", "labels-idx1").replace("images.idx3", "labels.idx1");
    let labels_path = images.with_file_name(name);
    let (counts, labels) = read(&labels_path, 1)?;
    let [count, height, width] = sizes[..] else { return Err(wrong(images, "it does not hold images")) };
    if counts != [count] {
        let problem = format!("{} labels for {count} images", counts.first().unwrap_or(&0));
        return Err(wrong(&labels_path, problem));
    }
    if count == 0 || height * width == 0 {
        return Err(Error::Empty { path: images.to_owned(), what: "images" });
    }
    let classes = labels.iter().max().map_or(0, |label| usize::from(*label) + 1);
    Ok(Table {
        width: height * width,
        shape: Some([1, height, width]),
        inputs: pixels.into_iter().map(f32::from).collect(),
        labels: labels.into_iter().map(u32::from).collect(),
        classes: (0..classes).map(|class| class.to_string()).collect(),
    })
}

fn wrong(path: &Path, problem: impl Into<String>) -> Error {
    Error::Format { path: path.to_owned(), problem: problem.into() }
}

/// The sizes of so many dimensions, and the bytes.
fn read(path: &Path, dimensions: usize) -> Result<(Vec<usize>, Vec<u8>), Error> {
    let failed = |source| Error::Read { path: PathBuf::from(path), source };
    let file = BufReader::new(fs_err::File::open(path).map_err(failed)?);
    let mut bytes = Vec::new();
    if path.extension().is_some_and(|extension| extension == "gz") {
        MultiGzDecoder::new(file).take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        file.take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
    }
    let header = 4 + 4 * dimensions;
    if bytes.len() < header || bytes[..3] != [0, 0, 8] || usize::from(bytes[3]) != dimensions {
        return Err(wrong(path, format!("not an IDX file of bytes in {dimensions} dimensions")));
    }
    let size =
        |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
    let sizes: Vec<usize> = (1..=dimensions).map(|dimension| size(4 * dimension)).collect();
    let expected = sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
    if expected != Some(bytes.len() - header) {
        return Err(wrong(path, format!("{} bytes do not fill {sizes:?}", bytes.len() - header)));
    }
    bytes.drain(..header);
    Ok((sizes, bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(dimensions: &[u32], values: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
        bytes.extend(dimensions.iter().flat_map(|size| size.to_be_bytes()));
        bytes.extend(values);
        bytes
    }

    #[test]
    fn images_and_labels_read_together() {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("train-images-idx3-ubyte");
        fs_err::write(&images, file(&[2, 1, 3], &[0, 1, 2, 3, 4, 255])).unwrap();
        fs_err::write(folder.path().join("train-labels-idx1-ubyte"), file(&[2], &[7, 0])).unwrap();
        let table = Table::load(folder.path(), None).unwrap();
        assert_eq!((table.width, table.shape, table.classes.len()), (3, Some([1, 1, 3]), 8));
        assert_eq!((&table.inputs[3..], &table.labels[..]), (&[3.0, 4.0, 255.0][..], &[7, 0][..]));

        fs_err::write(folder.path().join("train-labels-idx1-ubyte"), file(&[3], &[7, 0, 1])).unwrap();
        let message = Table::load(&images, None).unwrap_err().to_string();
        assert!(message.ends_with("train-labels-idx1-ubyte: 3 labels for 2 images"), "{message}");
        fs_err::write(&images, file(&[2, 1, 3], &[0])).unwrap();
        let message = Table::load(&images, None).unwrap_err().to_string();
        assert!(message.ends_with("1 bytes do not fill [2, 1, 3]"), "{message}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40), real: bool) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x-images-idx3-ubyte");
            let bytes = if real { [&[0, 0, 8, 3], &bytes[..]].concat() } else { bytes };
            fs_err::write(&path, &bytes).unwrap();
            prop_assert!(load(&path).is_err());
        }
    }
}
