//! Labelled samples in memory: reading them, splitting off a test set and scaling the inputs.

use std::path::{Path, PathBuf};

use super::{Error, csv, idx, parquet};
use crate::checksum::checksum;
use crate::sampler::permutation;

/// Stream of the split among the streams of a seed.
const SPLIT: u64 = 0;

/// Samples with their labels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Table {
    /// Values of one sample.
    pub(crate) width: usize,
    /// Channels, height and width of a sample, where the file says that it is an image.
    pub(crate) shape: Option<[usize; 3]>,
    /// The samples, one behind the other.
    pub(crate) inputs: Vec<f32>,
    /// The class of each sample.
    pub(crate) labels: Vec<u32>,
    /// The names of the classes.
    pub(crate) classes: Vec<String>,
}

/// A shift and a factor for each input, so that inputs have mean 0 and variance 1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scaling {
    pub(crate) mean: Vec<f32>,
    pub(crate) factor: Vec<f32>,
}

impl Table {
    /// Reads a `.csv`, `.csv.gz` or `.parquet` file, or all such files of a folder in the order of their names; or the
    /// images of an IDX file, or of a folder that holds one, with the labels beside them. `label` names the label's
    /// column of Parquet files; otherwise it is the last.
    pub(crate) fn load(path: &Path, label: Option<&str>) -> Result<Self, Error> {
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
            return parquet::load(&files, label)?.ok_or_else(|| empty("samples"));
        }
        if let (Some(_), Some(file)) = (label, files.first()) {
            let problem = "--label is for Parquet files; here the last column is the label".to_owned();
            return Err(Error::Format { path: file.clone(), problem });
        }
        if let Some(images) = files.iter().find(|file| idx::is_images(&super::file_name(file))) {
            return idx::load(images);
        }
        let mut rows = csv::Rows::default();
        for file in &files {
            rows.read(file)?;
        }
        if files.is_empty() {
            return Err(empty("file ending in .csv, .csv.gz, .parquet or -images-idx3-ubyte"));
        }
        rows.into_table().ok_or_else(|| empty("samples"))
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

    /// The scaling that the given samples call for; an input that never changes is only shifted.
    pub(crate) fn scaling(&self, samples: &[usize]) -> Scaling {
        let count = samples.len().max(1) as f64;
        let rows = || samples.iter().map(|sample| self.input(*sample));
        let mut mean = vec![0.0_f64; self.width];
        for row in rows() {
            mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value) / count);
        }
        let mut variance = vec![0.0_f64; self.width];
        for row in rows() {
            for ((sum, value), mean) in variance.iter_mut().zip(row).zip(&mean) {
                *sum += (f64::from(*value) - mean).powi(2) / count;
            }
        }
        let factor = |variance: &f64| if *variance > 1e-12 { (1.0 / variance.sqrt()) as f32 } else { 1.0 };
        Scaling {
            mean: mean.iter().map(|mean| *mean as f32).collect(),
            factor: variance.iter().map(factor).collect(),
        }
    }

    pub(crate) fn scale(&mut self, scaling: &Scaling) {
        for row in self.inputs.chunks_exact_mut(self.width) {
            for ((value, mean), factor) in row.iter_mut().zip(&scaling.mean).zip(&scaling.factor) {
                *value = (*value - mean) * factor;
            }
        }
    }

    /// A checksum of inputs and labels.
    pub(crate) fn checksum(&self) -> u64 {
        let bits = self.inputs.iter().map(|value| u64::from(value.to_bits()));
        checksum(bits.chain(self.labels.iter().map(|label| u64::from(*label))))
    }

    /// Copies samples into a batch.
    pub(crate) fn gather(&self, samples: &[usize], inputs: &mut Vec<f32>, labels: &mut Vec<u32>) {
        inputs.clear();
        labels.clear();
        for sample in samples {
            inputs.extend_from_slice(self.input(*sample));
            labels.push(self.labels[*sample]);
        }
    }

    fn input(&self, sample: usize) -> &[f32] {
        &self.inputs[sample * self.width..(sample + 1) * self.width]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            width: 2,
            shape: None,
            inputs: vec![1.0, 5.0, 3.0, 5.0, 5.0, 5.0, 7.0, 5.0],
            labels: vec![0, 1, 0, 1],
            classes: vec!["a".into(), "b".into()],
        }
    }

    #[test]
    fn scaled_inputs_have_mean_zero_and_variance_one() {
        let mut table = table();
        let scaling = table.scaling(&[0, 1, 2, 3]);
        table.scale(&scaling);
        let column: Vec<f32> = table.inputs.iter().step_by(2).copied().collect();
        assert!(column.iter().sum::<f32>().abs() < 1e-6);
        assert!((column.iter().map(|value| value * value).sum::<f32>() / 4.0 - 1.0).abs() < 1e-6);
        assert!(table.inputs.iter().skip(1).step_by(2).all(|value| *value == 0.0));
    }

    #[test]
    fn a_split_holds_every_sample_once() {
        let (training, test) = table().split(0.25, 9);
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
        let table = Table::load(folder.path(), None).unwrap();
        assert_eq!(table.inputs, [1.0, 2.0]);
        assert_eq!(table.classes, ["no", "yes"]);
    }

    #[test]
    fn nothing_to_train_on_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let message = Table::load(folder.path(), None).unwrap_err().to_string();
        assert!(
            message.ends_with("holds no file ending in .csv, .csv.gz, .parquet or -images-idx3-ubyte"),
            "{message}"
        );
        let file = folder.path().join("empty.csv");
        fs_err::write(&file, "a,b\n").unwrap();
        assert!(Table::load(&file, None).unwrap_err().to_string().ends_with("holds no samples"));
        let absent = folder.path().join("absent.csv");
        assert!(Table::load(&absent, None).unwrap_err().to_string().starts_with("cannot read "));
    }
}
