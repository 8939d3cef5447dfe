//! Model folders as Hugging Face lays them out.

use std::collections::HashMap;
use std::sync::Arc;

use fs_err as fs;
use muster_checkpoint::store::{FolderStore, Store};
use muster_checkpoint::{
    Checkpoints, DataType, ModelError, ModelFolder, ModelOptions, ModelWriteError, write_model,
};
use proptest::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::json;

use crate::samples::{DATA_TYPES, Sample, evenly, save_all};

fn write(store: &dyn Store, samples: &[Sample], most: u64) -> Result<(), ModelWriteError> {
    let by_name: HashMap<_, _> = samples.iter().map(|sample| (sample.tensor.name(), sample)).collect();
    let tensors: Vec<_> = samples.iter().map(|sample| sample.tensor.clone()).collect();
    let options = ModelOptions { most_bytes_a_file: most, ..ModelOptions::default() };
    write_model(store, &tensors, &options, |tensor, bytes| {
        bytes.copy_from_slice(&by_name[tensor.name()].bytes);
        Ok(())
    })
}

fn samples() -> Vec<Sample> {
    let shapes: [&[u64]; 9] = [&[3, 5], &[], &[7], &[2, 2, 2], &[0], &[40], &[1, 9], &[6], &[5, 5]];
    DATA_TYPES
        .iter()
        .zip(shapes)
        .enumerate()
        .map(|(index, (data_type, shape))| {
            Sample::new(&format!("model.{index}.weight"), *data_type, shape, index as u64)
        })
        .collect()
}

fn open(folder: &tempfile::TempDir) -> Result<ModelFolder, ModelError> {
    ModelFolder::open(folder.path().to_str().unwrap())
}

#[test]
fn what_is_written_is_read_by_us_and_by_the_library() {
    let samples = samples();
    for (most, files) in [(u64::MAX, 1), (100, 5), (1, 9)] {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path()).unwrap();
        write(&store, &samples, most).unwrap();
        let names: Vec<String> = store.list("").unwrap().into_iter().map(|entry| entry.name).collect();
        assert!(names.len() >= files, "{names:?}");
        let model = open(&folder).unwrap();
        assert_eq!(model.tensors().count(), samples.len());
        let mut found = 0;
        for name in names.iter().filter(|name| name.ends_with(".safetensors")) {
            let bytes = fs::read(folder.path().join(name)).unwrap();
            let theirs = SafeTensors::deserialize(&bytes).unwrap();
            for sample in &samples {
                if let Ok(view) = theirs.tensor(sample.tensor.name()) {
                    assert!(view.data() == sample.bytes);
                    found += 1;
                }
            }
            let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
            assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
        }
        assert_eq!(found, samples.len());
        for sample in &samples {
            let (name, elements) = (sample.tensor.name(), sample.tensor.elements());
            assert_eq!(model.tensor(name), Some(&sample.tensor));
            assert!(model.read(name, 0..elements).unwrap() == sample.bytes);
            let part = elements / 3..elements - elements / 4;
            assert!(model.read(name, part.clone()).unwrap() == sample.part(&part));
        }
        if files > 1 {
            let index = fs::read(folder.path().join("model.safetensors.index.json")).unwrap();
            let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
            let total: u64 = samples.iter().map(|sample| sample.tensor.bytes()).sum();
            assert_eq!(index["metadata"]["total_size"], json!(total));
            assert_eq!(index["weight_map"].as_object().unwrap().len(), samples.len());
        }
        let refused = write(&store, &samples, most).unwrap_err().to_string();
        assert!(refused.starts_with("there is a model already (model.safetensors"), "{refused}");
    }
}

#[test]
fn what_the_library_writes_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..24).collect();
    let views = [
        ("b", TensorView::new(safetensors::Dtype::F32, vec![2, 3], &bytes).unwrap()),
        ("a", TensorView::new(safetensors::Dtype::BOOL, vec![24], &bytes).unwrap()),
    ];
    fs::write(folder.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    let model = open(&folder).unwrap();
    assert_eq!(model.read("b", 1..3).unwrap(), bytes[4..12]);
    assert_eq!(model.tensor("a").unwrap().data_type(), DataType::Bool);
    assert!(matches!(model.read("c", 0..1), Err(ModelError::NoTensor(_))));
    assert!(matches!(model.read("b", 6..7), Err(ModelError::Request(_))));
}

#[test]
fn the_shard_of_a_single_rank_is_a_models_file() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path().to_str().unwrap()).unwrap();
    let samples = samples();
    save_all(&checkpoints, 1, &samples, &evenly(&samples, 1), json!(null));
    let step = folder.path().join("step-00000000000000000001");
    let mut files = fs::read_dir(&step).unwrap().map(|item| item.unwrap().path());
    let shard = files.find(|path| path.extension().unwrap() == "safetensors").unwrap();
    fs::rename(shard, step.join("model.safetensors")).unwrap();
    let model = ModelFolder::open(step.to_str().unwrap()).unwrap();
    for sample in &samples {
        let all = 0..sample.tensor.elements();
        assert!(model.read(sample.tensor.name(), all).unwrap() == sample.bytes);
    }
}

#[test]
fn a_checkpoint_is_exported_tensor_by_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path().join("run").to_str().unwrap()).unwrap();
    let samples = samples();
    let checkpoint = save_all(&checkpoints, 1, &samples, &evenly(&samples, 3), json!(null));
    let store: Arc<dyn Store> = Arc::new(FolderStore::open(folder.path().join("model")).unwrap());
    let tensors: Vec<_> = checkpoint.tensors().cloned().collect();
    let options = ModelOptions { most_bytes_a_file: 60, ..ModelOptions::default() };
    write_model(&*store, &tensors, &options, |tensor, bytes| {
        let request =
            muster_checkpoint::Request { tensor: tensor.name(), range: 0..tensor.elements(), bytes };
        Ok(checkpoint.load(&mut [request])?)
    })
    .unwrap();
    let model = ModelFolder::in_store(store).unwrap();
    for sample in &samples {
        let all = 0..sample.tensor.elements();
        assert!(model.read(sample.tensor.name(), all).unwrap() == sample.bytes);
    }
}

#[test]
fn what_is_wrong_with_a_folder_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let says = |expected: &str| {
        let message = open(&folder).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    says("there is neither model.safetensors nor model.safetensors.index.json");
    put("model.safetensors.index.json", b"{");
    says("model.safetensors.index.json cannot be used: EOF");
    put("model.safetensors.index.json", br#"{"weight_map":{"a":"../other/secret.safetensors"}}"#);
    says(r#"names "../other/secret.safetensors", which is no file of the folder"#);
    put("model.safetensors.index.json", br#"{"weight_map":{"a":"one.safetensors"}}"#);
    says("one.safetensors is not in ");
    put("one.safetensors", b"\x04\0\0\0\0\0\0\0{}  ");
    says("one.safetensors has no tensor a, which model.safetensors.index.json says it has");
    put("one.safetensors", b"\xff\0\0\0\0\0\0\0{}  ");
    says("one.safetensors cannot be used: the header is said to be 255 bytes long, of a file of 12");
    put("model.safetensors", b"abc");
    says("model.safetensors cannot be used: the file has 3 bytes and no header");
}

#[test]
fn a_failure_in_the_middle_leaves_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let store = FolderStore::open(folder.path()).unwrap();
    let samples = samples();
    let tensors: Vec<_> = samples.iter().map(|sample| sample.tensor.clone()).collect();
    let options = ModelOptions { most_bytes_a_file: 60, ..ModelOptions::default() };
    let mut left = 4;
    let message = write_model(&store, &tensors, &options, |_, _| {
        left -= 1;
        if left == 0 { Err("it is gone".into()) } else { Ok(()) }
    });
    let message = message.unwrap_err().to_string();
    assert!(message.ends_with("cannot be had: it is gone"), "{message}");
    assert!(matches!(open(&folder), Err(ModelError::NoModel)));
    write(&store, &samples, 60).unwrap();
    assert_eq!(open(&folder).unwrap().tensors().count(), samples.len());
}

proptest! {
    #[test]
    fn arbitrary_files_are_refused_or_read(
        bytes in proptest::collection::vec(any::<u8>(), 0..100), length in 0_u64..200,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut file = length.to_le_bytes().to_vec();
        file.extend(bytes);
        fs::write(folder.path().join("model.safetensors"), file).unwrap();
        if let Ok(model) = open(&folder) {
            for tensor in model.tensors() {
                model.read(tensor.name(), 0..tensor.elements()).unwrap();
            }
        }
    }
}
