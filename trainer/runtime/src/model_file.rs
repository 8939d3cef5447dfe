//! The trained model as a safetensors file that appears whole or not at all.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use safetensors::{Dtype, tensor::TensorView};

use serde_json::Value;

use crate::data::Scaling;
use crate::error::Error;

/// Name of the file in the output folder.
const FILE_NAME: &str = "model.safetensors";

/// What is written beside the parameters.
#[derive(Debug)]
pub(crate) struct Description<'a> {
    /// What a program needs to know to build the model again.
    pub(crate) model: Value,
    pub(crate) scaling: Option<&'a Scaling>,
    pub(crate) classes: &'a [String],
    pub(crate) steps: u64,
    pub(crate) test_accuracy: Option<f64>,
}

/// Creates the folder, so that a bad path fails before training rather than after.
pub(crate) fn prepare(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.to_owned(), source })
}

/// A tensor of the model: name, shape, values.
pub(crate) type Named = (String, Vec<usize>, Vec<f32>);

/// Writes the model and returns its path.
///
/// Apply it as `(input - input.mean) * input.factor`, where those are there, then the model that the description names;
/// the largest score names the class, counted along its `classes`. The description is the JSON value of the metadata
/// entry `muster`.
pub(crate) fn write(
    folder: &Path,
    tensors: &[Named],
    description: &Description<'_>,
) -> Result<PathBuf, Error> {
    // Another rank may have been the first when the training began.
    prepare(folder)?;
    let path = folder.join(FILE_NAME);
    let failed = |source| Error::Write { path: path.clone(), source };
    let bytes = encode(tensors, description).map_err(|error| failed(io::Error::other(error)))?;
    let temporary = folder.join(format!(".{FILE_NAME}.{}.tmp", std::process::id()));
    let written = replace(&temporary, &path, &bytes);
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(failed)?;
    Ok(path)
}

fn replace(temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}

fn encode(tensors: &[Named], description: &Description<'_>) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let Description { model, scaling, classes, steps, test_accuracy } = description;
    let mut all: Vec<(&str, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, shape, values)| (name.as_str(), shape.clone(), little_endian(values)))
        .collect();
    if let Some(scaling) = scaling {
        for (name, values) in [("input.mean", &scaling.mean), ("input.factor", &scaling.factor)] {
            all.push((name, vec![values.len()], little_endian(values)));
        }
    }
    let views = all
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    // One entry: the library writes several in the order of a hash map, which differs from run to run.
    let description = serde_json::json!({
        "format": "muster-model-1",
        "model": model,
        "classes": classes,
        "steps": steps,
        "test_accuracy": test_accuracy,
    });
    let metadata = HashMap::from([("muster".to_owned(), description.to_string())]);
    safetensors::serialize(views, Some(metadata))
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_model_reads_back_and_leaves_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let weights: Vec<f32> = (0..6).map(|place| place as f32 * 0.5).collect();
        let parameters = [("layers.0.weight".to_owned(), vec![2, 3], weights.clone())];
        let scaling = Scaling { mean: vec![1.0, 2.0, 3.0], factor: vec![0.5; 3] };
        let classes = ["no".to_owned(), "yes".to_owned()];
        let description = Description {
            model: serde_json::json!({ "kind": "mlp", "sizes": [3, 2] }),
            scaling: Some(&scaling),
            classes: &classes,
            steps: 7,
            test_accuracy: Some(0.5),
        };
        let path = write(folder.path(), &parameters, &description).unwrap();
        write(folder.path(), &parameters, &description).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let bytes = fs::read(path).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        let read: serde_json::Value = serde_json::from_str(&metadata["muster"]).unwrap();
        assert_eq!(
            (&read["model"]["sizes"], &read["classes"]),
            (&serde_json::json!([3, 2]), &serde_json::json!(classes))
        );
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.tensor("layers.0.weight").unwrap().data(), little_endian(&weights));
        assert_eq!(tensors.tensor("input.mean").unwrap().shape(), [3]);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let message = prepare(&file.join("model")).unwrap_err().to_string();
        assert!(message.starts_with("cannot write the model to "), "{message}");
    }
}
