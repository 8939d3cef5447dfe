//! What N ranks saved, M ranks load, whatever part each of them holds.

use std::sync::{Arc, Mutex};

use muster_checkpoint::store::{Entry, Error, ObjectFolder, Store, Upload};
use muster_checkpoint::{Checkpoint, Checkpoints, DataType, LoadError, Request};
use object_store::memory::InMemory;
use proptest::prelude::*;
use serde_json::json;

use crate::samples::{DATA_TYPES, Held, Sample, evenly, save_all};

/// Notes what is read of which file.
#[derive(Debug)]
struct Watched {
    inner: ObjectFolder,
    reads: Mutex<Vec<(String, u64, u64)>>,
}

impl Watched {
    fn new() -> Arc<Self> {
        let inner = ObjectFolder::new(Arc::new(InMemory::new()), "").unwrap();
        Arc::new(Self { inner, reads: Mutex::default() })
    }
}

impl Store for Watched {
    fn list(&self, folder: &str) -> Result<Vec<Entry>, Error> {
        self.inner.list(folder)
    }

    fn size(&self, name: &str) -> Result<u64, Error> {
        self.inner.size(name)
    }

    fn read(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<(), Error> {
        self.reads.lock().unwrap().push((name.to_owned(), offset, offset + into.len() as u64));
        self.inner.read(name, offset, into)
    }

    fn create(&self, name: &str, bytes: u64) -> Result<Box<dyn Upload + '_>, Error> {
        self.inner.create(name, bytes)
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        self.inner.remove(name)
    }
}

/// Loads what a rank holds at once, and compares.
fn load(checkpoint: &Checkpoint, samples: &[Sample], held: &Held) {
    let mut buffers: Vec<Vec<u8>> =
        held.iter().map(|(index, range)| vec![0xaa; samples[*index].part(range).len()]).collect();
    let mut requests: Vec<Request<'_>> = held
        .iter()
        .zip(&mut buffers)
        .map(|((index, range), bytes)| Request {
            tensor: samples[*index].tensor.name(),
            range: range.clone(),
            bytes,
        })
        .collect();
    checkpoint.load(&mut requests).unwrap();
    for ((index, range), bytes) in held.iter().zip(&buffers) {
        assert!(bytes == samples[*index].part(range), "{} {range:?}", samples[*index].tensor.name());
    }
}

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let shape = prop_oneof![
        4 => proptest::collection::vec(1_u64..40, 1..3),
        1 => Just(vec![]),
        1 => Just(vec![0, 3]),
        1 => Just(vec![3000]),
    ];
    proptest::collection::vec((0..DATA_TYPES.len(), shape), 1..6).prop_map(|tensors| {
        let sample = |(index, (data_type, shape)): (usize, (usize, Vec<u64>))| {
            Sample::new(&format!("layer.{index}"), DATA_TYPES[data_type], &shape, index as u64 + 1)
        };
        tensors.into_iter().enumerate().map(sample).collect()
    })
}

/// Cuts every tensor anywhere, and gives the parts to any ranks.
fn scatter(samples: &[Sample], world_size: usize, choices: &[(prop::sample::Index, usize)]) -> Vec<Held> {
    let mut held = vec![Held::new(); world_size];
    let mut choices = choices.iter().cycle();
    for (index, sample) in samples.iter().enumerate() {
        let elements = sample.tensor.elements();
        let mut cuts: Vec<u64> =
            choices.by_ref().take(5).map(|(cut, _)| cut.index(elements as usize + 1) as u64).collect();
        cuts.extend([0, elements]);
        cuts.sort_unstable();
        cuts.dedup();
        if elements == 0 {
            held[index % world_size].push((index, 0..0));
        }
        for (part, (_, rank)) in cuts.windows(2).zip(choices.by_ref()) {
            held[rank % world_size].push((index, part[0]..part[1]));
        }
    }
    held
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_ranks_load_what_any_ranks_saved(
        samples in samples(),
        world_size in 1_usize..=8,
        choices in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..8), 40),
        asked in proptest::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..12,
        ),
    ) {
        let store = Watched::new();
        let checkpoints = Checkpoints::in_store(Arc::clone(&store) as _);
        let held = scatter(&samples, world_size, &choices);
        save_all(&checkpoints, 5, &samples, &held, json!({"at": 0.1}));

        let checkpoint = checkpoints.latest().unwrap().unwrap();
        prop_assert_eq!(checkpoint.tensors().count(), samples.len());
        prop_assert_eq!((checkpoint.step(), checkpoint.world_size()), (5, world_size));
        prop_assert_eq!(checkpoint.state(), &json!({"at": 0.1}));
        checkpoint.verify().unwrap();
        for world_size in 1..=8 {
            for held in evenly(&samples, world_size) {
                load(&checkpoint, &samples, &held);
            }
        }

        // Any ranges, which may overlap, in any order.
        let wanted: Held = asked.iter().map(|(tensor, from, to)| {
            let index = tensor.index(samples.len());
            let elements = samples[index].tensor.elements() as usize + 1;
            let (from, to) = (from.index(elements) as u64, to.index(elements) as u64);
            (index, from.min(to)..from.max(to))
        }).collect();
        store.reads.lock().unwrap().clear();
        load(&checkpoint, &samples, &wanted);
        let mut reads = store.reads.lock().unwrap().clone();
        reads.sort();
        for pair in reads.windows(2) {
            prop_assert!(pair[0].0 != pair[1].0 || pair[0].2 <= pair[1].1, "read twice: {:?}", pair);
        }
        let read: u64 = reads.iter().map(|(_, start, end)| end - start).sum();
        let pieces: u64 = wanted.iter().map(|(index, range)| {
            held.iter().flatten().filter(|(other, part)| {
                other == index && part.start < range.end && range.start < part.end
            }).count() as u64
        }).sum();
        let bytes: u64 = wanted.iter().map(|(index, range)| samples[*index].part(range).len() as u64).sum();
        prop_assert!(read <= bytes + pieces * 2 * 1024, "{} bytes read for {} in {} pieces", read, bytes, pieces);
    }
}

#[test]
fn few_elements_are_read_with_their_chunk_alone() {
    let store = Watched::new();
    let checkpoints = Checkpoints::in_store(Arc::clone(&store) as _);
    let samples = [Sample::new("a", DataType::F32, &[100_000], 1)];
    let checkpoint = save_all(&checkpoints, 1, &samples, &evenly(&samples, 1), json!(null));
    store.reads.lock().unwrap().clear();
    assert_eq!(checkpoint.read("a", 50_000..50_002).unwrap(), samples[0].part(&(50_000..50_002)));
    let reads = store.reads.lock().unwrap().clone();
    assert!(matches!(&reads[..], [(_, start, end)] if end - start == 1024), "{reads:?}");
    // Exactly the chunks, also for a part that begins and ends with them.
    store.reads.lock().unwrap().clear();
    checkpoint.read("a", 0..100_000).unwrap();
    let read: u64 = store.reads.lock().unwrap().iter().map(|(_, start, end)| end - start).sum();
    assert!((400_000..402_000).contains(&read), "{read}");
}

#[test]
fn what_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path().to_str().unwrap()).unwrap();
    assert!(checkpoints.latest().unwrap().is_none());
    let samples = [Sample::new("a", DataType::F32, &[10], 1)];
    let checkpoint = save_all(&checkpoints, 1, &samples, &evenly(&samples, 3), json!(null));
    let message = checkpoint.read("b", 0..1).unwrap_err().to_string();
    assert_eq!(message, "the checkpoint of step 1 has no tensor b");
    let message = checkpoint.read("a", 5..11).unwrap_err().to_string();
    assert_eq!(message, "tensor a has 10 elements, and no range 5..11");
    let request = Request { tensor: "a", range: 0..2, bytes: &mut [0; 7] };
    assert!(matches!(checkpoint.load(&mut [request]), Err(LoadError::Request(_))));
    let message = checkpoints.checkpoint(2).unwrap_err().to_string();
    assert!(message.starts_with("step-00000000000000000002/manifest.json is not in "), "{message}");
}
