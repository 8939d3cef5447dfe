//! Images and labels in IDX files, the form of MNIST: big-endian sizes, then one byte a value.

use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::rows::{Room, Writer};
use super::{Error, Table, file_name};

/// Whether a file of this name holds images.
pub(super) fn is_images(name: &str) -> bool {
    name.trim_end_matches(".gz").ends_with("images-idx3-ubyte")
        || name.trim_end_matches(".gz").ends_with("images.idx3-ubyte")
}

/// Reads images and, from the file of the same name with `labels-idx1` for `images-idx3`, their labels.
pub(super) fn load(images: &Path, room: &Room) -> Result<Table, Error> {
    let mut file = Reader::<3>::open(images)?;
    let name = file_name(images).replace("images-idx3", "labels-idx1").replace("images.idx3", "labels.idx1");
    let labels_path = images.with_file_name(name);
    let mut labels_file = Reader::<1>::open(&labels_path)?;
    let ([count, height, width], [label_count]) = (file.sizes, labels_file.sizes);
    if label_count != count {
        return Err(wrong(&labels_path, format!("{label_count} labels for {count} images")));
    }
    if count == 0 || height * width == 0 {
        return Err(Error::Empty { path: images.to_owned(), what: "images" });
    }
    let mut labels = Vec::new();
    labels_file.each(count, |label| {
        labels.extend(label.iter().copied().map(u32::from));
        Ok(())
    })?;
    let (mut rows, mut row) = (Writer::new(room), Vec::new());
    file.each(height * width, |pixels| {
        row.clear();
        row.extend(pixels.iter().copied().map(f32::from));
        rows.add(&row)
    })?;
    let classes = labels.iter().max().map_or(0, |label| *label + 1);
    let classes = (0..classes).map(|class| class.to_string()).collect();
    Ok(Table::new(rows.finish()?, Some([1, height, width]), (labels, classes)))
}

fn wrong(path: &Path, problem: impl Into<String>) -> Error {
    Error::Format { path: path.to_owned(), problem: problem.into() }
}

/// A file of bytes in so many dimensions, read up to its first byte.
struct Reader<'a, const DIMENSIONS: usize> {
    path: &'a Path,
    sizes: [usize; DIMENSIONS],
    bytes: Box<dyn Read>,
}

impl<'a, const DIMENSIONS: usize> Reader<'a, DIMENSIONS> {
    fn open(path: &'a Path) -> Result<Self, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let file = BufReader::new(fs_err::File::open(path).map_err(failed)?);
        let mut bytes: Box<dyn Read> = if path.extension().is_some_and(|extension| extension == "gz") {
            Box::new(BufReader::new(MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        let not_idx = || wrong(path, format!("not an IDX file of bytes in {DIMENSIONS} dimensions"));
        let mut word = || {
            let mut word = [0; 4];
            match bytes.read_exact(&mut word) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(not_idx()),
                read => read.map(|()| word).map_err(failed),
            }
        };
        let [0, 0, 8, dimensions] = word()? else { return Err(not_idx()) };
        if usize::from(dimensions) != DIMENSIONS {
            return Err(not_idx());
        }
        let mut sizes = [0; DIMENSIONS];
        for size in &mut sizes {
            *size = u32::from_be_bytes(word()?) as usize;
        }
        if sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(*size)).is_none() {
            return Err(wrong(path, format!("no file fills {sizes:?}")));
        }
        Ok(Self { path, sizes, bytes })
    }

    /// Reads all bytes, so many at once, and checks that there are no others.
    fn each(&mut self, at_once: usize, mut see: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let Self { path, sizes, bytes } = self;
        let failed = |source| Error::Read { path: path.to_path_buf(), source };
        let all = sizes.iter().product::<usize>() as u64;
        let (mut read, mut piece) = (0_u64, Vec::new());
        while read < all {
            piece.clear();
            read += bytes.by_ref().take(at_once as u64).read_to_end(&mut piece).map_err(failed)? as u64;
            if piece.len() < at_once {
                return Err(wrong(path, format!("{read} bytes do not fill {sizes:?}")));
            }
            see(&piece)?;
        }
        match bytes.read(&mut [0]).map_err(failed)? {
            0 => Ok(()),
            _ => Err(wrong(path, format!("more bytes than fill {sizes:?}"))),
        }
    }
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
        let table = Table::load(folder.path(), None, &Room::ample()).unwrap();
        assert_eq!((table.width(), table.shape, table.classes.len()), (3, Some([1, 1, 3]), 8));
        assert_eq!((&table.rows.to_vec()[3..], &table.labels[..]), (&[3.0, 4.0, 255.0][..], &[7, 0][..]));

        fs_err::write(folder.path().join("train-labels-idx1-ubyte"), file(&[3], &[7, 0, 1])).unwrap();
        let message = Table::load(&images, None, &Room::ample()).unwrap_err().to_string();
        assert!(message.ends_with("train-labels-idx1-ubyte: 3 labels for 2 images"), "{message}");
        fs_err::write(&images, file(&[2, 1, 3], &[0])).unwrap();
        let message = Table::load(&images, None, &Room::ample()).unwrap_err().to_string();
        assert!(message.ends_with("train-labels-idx1-ubyte: 3 labels for 2 images"), "{message}");
        fs_err::write(folder.path().join("train-labels-idx1-ubyte"), file(&[2], &[7, 0])).unwrap();
        let message = Table::load(&images, None, &Room::ample()).unwrap_err().to_string();
        assert!(message.ends_with("1 bytes do not fill [2, 1, 3]"), "{message}");
        fs_err::write(&images, file(&[2, 1, 3], &[0; 7])).unwrap();
        let message = Table::load(&images, None, &Room::ample()).unwrap_err().to_string();
        assert!(message.ends_with("more bytes than fill [2, 1, 3]"), "{message}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40), real: bool) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x-images-idx3-ubyte");
            let bytes = if real { [&[0, 0, 8, 3], &bytes[..]].concat() } else { bytes };
            fs_err::write(&path, &bytes).unwrap();
            prop_assert!(load(&path, &Room::ample()).is_err());
        }
    }
}
