//! Shards that are changed, cut short or gone.

use std::sync::Arc;

use fs_err as fs;
use muster_checkpoint::errors::Damage;
use muster_checkpoint::store::{ObjectFolder, Store};
use muster_checkpoint::{Checkpoints, DataType, LoadError, NotIntact};
use object_store::memory::InMemory;
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use crate::samples::{Sample, evenly, save_all};

fn samples() -> Vec<Sample> {
    vec![Sample::new("first", DataType::F32, &[1000], 1), Sample::new("second", DataType::U8, &[4000], 2)]
}

/// Two steps of two ranks, and the path of a shard of the second.
fn saved() -> (TempDir, Checkpoints, Vec<Sample>, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path().to_str().unwrap()).unwrap();
    let samples = samples();
    for step in [1, 2] {
        save_all(&checkpoints, step, &samples, &evenly(&samples, 2), json!(null));
    }
    let files = fs::read_dir(folder.path().join("step-00000000000000000002")).unwrap();
    let mut paths = files.map(|item| item.unwrap().path());
    let shard = paths.find(|path| path.to_string_lossy().contains("shard-00001")).unwrap();
    (folder, checkpoints, samples, shard)
}

#[test]
fn damage_is_named_by_file_tensor_and_chunk_and_the_checkpoint_before_is_found() {
    let (_folder, checkpoints, samples, shard) = saved();
    let checkpoint = checkpoints.latest().unwrap().unwrap();
    let content = fs::read(&shard).unwrap();
    let file = shard.file_name().unwrap().to_str().unwrap().to_owned();

    // Past the 2000 bytes of the first tensor, and those of the header.
    let mut changed = content.clone();
    changed[3500] ^= 1;
    fs::write(&shard, &changed).unwrap();
    let error = checkpoint.verify().unwrap_err();
    assert!(
        matches!(&error, LoadError::Damaged { step: 2, file: named, chunk: 3, tensor, damage }
            if *named == file && tensor == "tensor second" && matches!(**damage, Damage::Changed)),
        "{error}"
    );
    let message = checkpoint.read("second", 2000..4000).unwrap_err().to_string();
    assert!(message.contains(&format!("chunk 3 of {file}, with tensor second")), "{message}");
    // What lies elsewhere can still be read.
    assert!(checkpoint.read("first", 500..1000).unwrap() == samples[0].part(&(500..1000)));
    assert!(checkpoint.read("second", 0..2000).unwrap() == samples[1].part(&(0..2000)));

    let intact = checkpoints.latest_intact().unwrap();
    assert_eq!(intact.checkpoint.unwrap().step(), 1);
    assert!(matches!(&intact.damaged[..], [(2, NotIntact::Shard(_))]));

    fs::write(&shard, &content[..2500]).unwrap();
    let message = checkpoint.read("second", 2000..4000).unwrap_err().to_string();
    assert!(message.contains(&file) && message.contains("not the length"), "{message}");
    let longer: Vec<u8> = content.iter().copied().chain([0]).collect();
    fs::write(&shard, longer).unwrap();
    assert!(checkpoint.verify().unwrap_err().to_string().contains("not the length"));

    fs::remove_file(&shard).unwrap();
    let message = checkpoint.read("first", 500..1000).unwrap_err().to_string();
    assert!(message.contains(&file) && message.contains("the file is missing"), "{message}");
    assert!(message.contains("tensor first"), "{message}");
    assert_eq!(checkpoints.latest_intact().unwrap().checkpoint.unwrap().step(), 1);

    fs::write(&shard, &content).unwrap();
    assert!(checkpoints.latest_intact().unwrap().damaged.is_empty());
}

#[test]
fn a_damaged_manifest_is_passed_over_and_nothing_of_its_step_is_cleaned_up() {
    let (folder, checkpoints, ..) = saved();
    let manifest = folder.path().join("step-00000000000000000002/manifest.json");
    let content = fs::read(&manifest).unwrap();
    for damaged in [&content[..content.len() / 2], &[][..], b"\0\0\0\0"] {
        fs::write(&manifest, damaged).unwrap();
        let message = checkpoints.latest().unwrap_err().to_string();
        assert_eq!(
            message,
            "step 2: the manifest is cut short or was changed: its checksum is not that of its content"
        );
        let intact = checkpoints.latest_intact().unwrap();
        assert_eq!(intact.checkpoint.unwrap().step(), 1);
        assert!(matches!(&intact.damaged[..], [(2, NotIntact::Manifest(_))]));
        assert!(checkpoints.clean().unwrap().is_empty());
    }
    // A manifest in the folder of another step is not its manifest.
    fs::copy(folder.path().join("step-00000000000000000001/manifest.json"), &manifest).unwrap();
    assert_eq!(checkpoints.latest().unwrap_err().to_string(), "step 2: the manifest is that of step 1");
    fs::write(&manifest, &content).unwrap();
    checkpoints.latest().unwrap().unwrap().verify().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_changed_byte_is_ever_loaded(at: prop::sample::Index, bit in 0_u8..8) {
        let store = Arc::new(ObjectFolder::new(Arc::new(InMemory::new()), "").unwrap());
        let checkpoints = Checkpoints::in_store(Arc::clone(&store) as _);
        let samples = samples();
        let checkpoint = save_all(&checkpoints, 1, &samples, &evenly(&samples, 2), json!(null));
        let shard = store.list("").unwrap().into_iter().find(|entry| entry.name.contains("shard-00001")).unwrap();
        let mut content = vec![0; shard.bytes as usize];
        store.read(&shard.name, 0, &mut content).unwrap();
        content[at.index(shard.bytes as usize)] ^= 1 << bit;
        let mut upload = store.create(&shard.name, shard.bytes).unwrap();
        upload.write(&content).unwrap();
        upload.finish().unwrap();

        prop_assert!(checkpoint.verify().is_err());
        for sample in &samples {
            let name = sample.tensor.name();
            if let Ok(bytes) = checkpoint.read(name, 0..sample.tensor.elements()) {
                prop_assert!(bytes == sample.bytes, "changed bytes of {} were loaded", name);
            }
        }
    }
}
