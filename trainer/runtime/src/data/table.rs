//! Labelled samples: reading them, splitting off a test set and scaling the inputs.

use std::path::{Path, PathBuf};

use super::rows::{Room, Rows};
use super::{Error, csv, idx, parquet};
use crate::sampler::permutation;

/// Stream of the split among the streams of a seed.
const SPLIT: u64 = 0;

/// Samples with their labels.
#[derive(Debug)]
pub(crate) struct Table {
    pub(super) rows: Rows,
    /// Channels, height and width of a sample, where the file says that it is an image.
    pub(crate) shape: Option<[usize; 3]>,
    /// The class of each sample.
    pub(crate) labels: Vec<u32>,
    /// The names of the classes.
    pub(crate) classes: Vec<String>,
    /// What is done to inputs as they are read.
    scaling: Option<Scaling>,
}

/// A shift and a factor for each input, so that inputs have mean 0 and variance 1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scaling {
    pub(crate) mean: Vec<f32>,
    pub(crate) factor: Vec<f32>,
}

impl Table {
    pub(super) fn new(
        rows: Rows,
        shape: Option<[usize; 3]>,
        (labels, classes): (Vec<u32>, Vec<String>),
    ) -> Self {
        Self { rows, shape, labels, classes, scaling: None }
    }

    /// Reads a `.csv`, `.csv.gz` or `.parquet` file, or all such files of a folder in the order of their names; or the
    /// images of an IDX file, or of a folder that holds one, with the labels beside them. `label` names the label's
    /// column of Parquet files; otherwise it is the last.
    pub(crate) fn load(path: &Path, label: Option<&str>, room: &Room) -> Result<Self, Error> {
        let is_parquet = |file: &PathBuf| parquet::is_parquet(&super::file_name(file));
        let files = super::files(path, |name| {
            super::ends_in(name, &["csv", "csv.gz"]) || parquet::is_parquet(name) || idx::is_images(name)
        })?;
        let empty = |what| Error::Empty { path: path.to_owned(), what };
        if files.iter().any(is_parquet) {
            if let Some(other) = files.iter().find(|file| !is_parquet(file)) {
                let problem = "Parquet files cannot be mixed with others".to_owned();
                return Err(Error::Format { path: other.clone(), problem });
            }
            return parquet::load(&files, label, room)?.ok_or_else(|| empty("samples"));
        }
        if let (Some(_), Some(file)) = (label, files.first()) {
            let problem = "--label is for Parquet files; here the last column is the label".to_owned();
            return Err(Error::Format { path: file.clone(), problem });
        }
        if let Some(images) = files.iter().find(|file| idx::is_images(&super::file_name(file))) {
            return idx::load(images, room);
        }
        let mut rows = csv::Rows::new(room);
        for file in &files {
            rows.read(file)?;
        }
        if files.is_empty() {
            return Err(empty("file ending in .csv, .csv.gz, .parquet or -images-idx3-ubyte"));
        }
        rows.into_table()?.ok_or_else(|| empty("samples"))
    }

    /// Values of one sample.
    pub(crate) fn width(&self) -> usize {
        self.rows.width
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// Training and test indices: the same on every rank with the same seed.
    pub(crate) fn split(&self, test_fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
        let mut training = permutation(self.len(), seed, SPLIT);
        let test = training.split_off(self.len() - (self.len() as f64 * test_fraction).round() as usize);
        (training, test)
    }

    /// Scales inputs from now on as the given samples call for; an input that never changes is only shifted.
    pub(crate) fn scale_by(&mut self, samples: &[usize]) -> Result<(), Error> {
        let mut counts = vec![false; self.len()];
        for sample in samples {
            counts[*sample] = true;
        }
        let count = samples.len().max(1) as f64;
        let mut mean = vec![0.0_f64; self.width()];
        self.rows.each(|place, row| {
            if counts[place] {
                mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value) / count);
            }
        })?;
        let mut variance = vec![0.0_f64; self.width()];
        self.rows.each(|place, row| {
            if counts[place] {
                for ((sum, value), mean) in variance.iter_mut().zip(row).zip(&mean) {
                    *sum += (f64::from(*value) - mean).powi(2) / count;
                }
            }
        })?;
        let factor = |variance: &f64| if *variance > 1e-12 { (1.0 / variance.sqrt()) as f32 } else { 1.0 };
        self.scaling = Some(Scaling {
            mean: mean.iter().map(|mean| *mean as f32).collect(),
            factor: variance.iter().map(factor).collect(),
        });
        Ok(())
    }

    pub(crate) fn scaling(&self) -> Option<&Scaling> {
        self.scaling.as_ref()
    }

    /// A checksum of inputs, as the files hold them, and labels.
    pub(crate) fn checksum(&self) -> u64 {
        self.rows.checksum.of(self.labels.iter().map(|label| u64::from(*label)))
    }

    /// Copies samples into a batch.
    pub(crate) fn gather(
        &self,
        samples: &[usize],
        inputs: &mut Vec<f32>,
        labels: &mut Vec<u32>,
    ) -> Result<(), Error> {
        inputs.resize(samples.len() * self.width(), 0.0);
        labels.clear();
        for (sample, row) in samples.iter().zip(inputs.chunks_exact_mut(self.width())) {
            self.rows.read(*sample, row)?;
            if let Some(Scaling { mean, factor }) = &self.scaling {
                for ((value, mean), factor) in row.iter_mut().zip(mean).zip(factor) {
                    *value = (*value - mean) * factor;
                }
            }
            labels.push(self.labels[*sample]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::Writer;
    use super::*;

    const ROWS: [[f32; 2]; 4] = [[1.0, 5.0], [3.0, 5.0], [5.0, 5.0], [7.0, 5.0]];

    fn table(room: &Room) -> Table {
        let mut rows = Writer::new(room);
        for row in &ROWS {
            rows.add(row).unwrap();
        }
        Table::new(rows.finish().unwrap(), None, (vec![0, 1, 0, 1], vec!["a".into(), "b".into()]))
    }

    #[test]
    fn scaled_inputs_have_mean_zero_and_variance_one_wherever_they_are() {
        let batches = [usize::MAX, 0].map(|memory| {
            let mut table = table(&Room { memory, ..Room::ample() });
            let before = table.checksum();
            table.scale_by(&[0, 1, 2, 3]).unwrap();
            assert_eq!(table.checksum(), before, "it is of what the files hold");
            let (mut inputs, mut labels) = (Vec::new(), Vec::new());
            table.gather(&[3, 0, 2, 1], &mut inputs, &mut labels).unwrap();
            assert_eq!(labels, [1, 0, 0, 1]);
            inputs
        });
        assert_eq!(batches[0], batches[1]);
        let column: Vec<f32> = batches[0].iter().step_by(2).copied().collect();
        assert!(column[0] > column[2] && column[2] > column[3] && column[3] > column[1]);
        assert!(column.iter().sum::<f32>().abs() < 1e-6);
        assert!((column.iter().map(|value| value * value).sum::<f32>() / 4.0 - 1.0).abs() < 1e-6);
        assert!(batches[0].iter().skip(1).step_by(2).all(|value| *value == 0.0));
    }

    #[test]
    fn samples_held_out_do_not_count_for_the_scaling() {
        let mut table = table(&Room::ample());
        table.scale_by(&[0, 2]).unwrap();
        let scaling = table.scaling().unwrap();
        assert_eq!((&scaling.mean[..], &scaling.factor[..]), (&[3.0, 5.0][..], &[0.5, 1.0][..]));
    }

    #[test]
    fn a_split_holds_every_sample_once() {
        let (training, test) = table(&Room::ample()).split(0.25, 9);
        assert_eq!((training.len(), test.len()), (3, 1));
        let mut all = [training, test].concat();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_names() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("b.csv"), "2,yes\n").unwrap();
        fs_err::write(folder.path().join("a.csv"), "x,label\n1,no\n").unwrap();
        fs_err::write(folder.path().join("notes.txt"), "not data").unwrap();
        let table = Table::load(folder.path(), None, &Room::ample()).unwrap();
        assert_eq!(table.rows.to_vec(), [1.0, 2.0]);
        assert_eq!(table.classes, ["no", "yes"]);
    }

    #[test]
    fn nothing_to_train_on_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let message = Table::load(folder.path(), None, &Room::ample()).unwrap_err().to_string();
        assert!(
            message.ends_with("holds no file ending in .csv, .csv.gz, .parquet or -images-idx3-ubyte"),
            "{message}"
        );
        let file = folder.path().join("empty.csv");
        fs_err::write(&file, "a,b\n").unwrap();
        assert!(
            Table::load(&file, None, &Room::ample()).unwrap_err().to_string().ends_with("holds no samples")
        );
        let absent = folder.path().join("absent.csv");
        assert!(
            Table::load(&absent, None, &Room::ample()).unwrap_err().to_string().starts_with("cannot read ")
        );
    }
}
