//! Any store: whatever call to it fails, dies or loses its answer, checkpoints stay whole.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use muster_checkpoint::store::{Entry, Error, ObjectFolder, Store, Upload};
use muster_checkpoint::{Checkpoints, DataType, Place, Retention, Shard};
use object_store::memory::InMemory;
use serde_json::json;

use crate::samples::{PATIENCE, Sample, evenly, options, save_all};

const RANKS: usize = 2;
const STEPS: u64 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The call is refused, and has no effect.
    Refused,
    /// The call has its effect, and its caller hears of a failure.
    AnswerLost,
    /// The call is refused, and so is every later one.
    Dead,
}

/// A store whose call of that number goes wrong.
#[derive(Debug)]
struct Faulty {
    inner: Arc<dyn Store>,
    fault: Fault,
    at: usize,
    calls: AtomicUsize,
    is_dead: AtomicBool,
}

fn injected(name: &str) -> Error {
    let source = std::io::Error::other("injected");
    Error::Failed { action: "reach", name: name.to_owned(), store: "a faulty store".into(), source }
}

impl Faulty {
    fn call<T>(&self, name: &str, call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let is_now = self.calls.fetch_add(1, Ordering::SeqCst) == self.at;
        match self.fault {
            _ if self.is_dead.load(Ordering::SeqCst) => Err(injected(name)),
            _ if !is_now => call(),
            Fault::Refused => Err(injected(name)),
            Fault::AnswerLost => call().and(Err(injected(name))),
            Fault::Dead => {
                self.is_dead.store(true, Ordering::SeqCst);
                Err(injected(name))
            }
        }
    }
}

impl Store for Faulty {
    fn list(&self, folder: &str) -> Result<Vec<Entry>, Error> {
        self.call(folder, || self.inner.list(folder))
    }

    fn size(&self, name: &str) -> Result<u64, Error> {
        self.call(name, || self.inner.size(name))
    }

    fn read(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<(), Error> {
        self.call(name, || self.inner.read(name, offset, into))
    }

    fn create(&self, name: &str, bytes: u64) -> Result<Box<dyn Upload + '_>, Error> {
        let inner = self.call(name, || self.inner.create(name, bytes))?;
        Ok(Box::new(FaultyUpload { store: self, name: name.to_owned(), inner }))
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        self.call(name, || self.inner.remove(name))
    }
}

struct FaultyUpload<'a> {
    store: &'a Faulty,
    name: String,
    inner: Box<dyn Upload + 'a>,
}

impl Upload for FaultyUpload<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.store.call(&self.name, || self.inner.write(bytes))
    }

    fn finish(self: Box<Self>) -> Result<(), Error> {
        let Self { store, name, inner } = *self;
        store.call(&name, || inner.finish())
    }
}

fn sample(step: u64) -> [Sample; 1] {
    [Sample::new("weights", DataType::BF16, &[2000], step)]
}

/// Saves, commits and keeps two, and goes on after failures; the last step whose commit succeeded.
fn train(checkpoints: &Checkpoints) -> (Option<u64>, usize) {
    let (mut committed, mut failures) = (None, 0);
    let retention = Retention { newest: NonZeroUsize::new(2).unwrap(), every: None };
    for step in 1..=STEPS {
        let samples = sample(step);
        let receipts: Result<Vec<_>, _> = evenly(&samples, RANKS)
            .iter()
            .enumerate()
            .map(|(rank, held)| {
                let mut saver = checkpoints.saver(Place { rank, world_size: RANKS }, options())?;
                let mut shard = Shard::new();
                for (_, range) in held {
                    shard.add(&samples[0].tensor, range.clone(), samples[0].part(range)).unwrap();
                }
                saver.begin(step, &shard)?.wait(PATIENCE)
            })
            .collect();
        let result = receipts.map(|receipts| checkpoints.commit(&receipts, json!(step)).map(drop));
        match result {
            Ok(Ok(())) => committed = Some(step),
            Ok(Err(_)) | Err(_) => failures += 1,
        }
        failures += usize::from(checkpoints.retain(&retention).is_err());
    }
    (committed, failures)
}

#[test]
fn whatever_call_goes_wrong_checkpoints_stay_whole() {
    for fault in [Fault::Refused, Fault::AnswerLost, Fault::Dead] {
        for at in 0.. {
            let objects: Arc<dyn Store> =
                Arc::new(ObjectFolder::new(Arc::new(InMemory::new()), "runs/a").unwrap());
            let faulty = Arc::new(Faulty {
                inner: Arc::clone(&objects),
                fault,
                at,
                calls: AtomicUsize::new(0),
                is_dead: AtomicBool::new(false),
            });
            let (committed, failures) = train(&Checkpoints::in_store(Arc::clone(&faulty) as _));
            if faulty.calls.load(Ordering::SeqCst) <= at {
                assert!(at > 40, "only {at} calls");
                break;
            }
            assert!(failures > 0, "{fault:?} of call {at} was not told");

            let checkpoints = Checkpoints::in_store(Arc::clone(&objects));
            let steps = checkpoints.steps().unwrap();
            assert!(committed <= steps.first().copied(), "{fault:?} of call {at}: {committed:?} {steps:?}");
            for step in &steps {
                let checkpoint = checkpoints.checkpoint(*step).unwrap();
                checkpoint.verify().unwrap();
                assert_eq!(checkpoint.state(), &json!(step));
                assert!(checkpoint.read("weights", 0..2000).unwrap() == sample(*step)[0].bytes);
            }
            checkpoints.clean().unwrap();
            assert_eq!(objects.list("").unwrap().len(), steps.len() * (1 + RANKS), "{fault:?} of call {at}");
        }
    }
}

#[test]
fn long_shards_go_to_an_object_store_in_parts() {
    let objects = Arc::new(ObjectFolder::new(Arc::new(InMemory::new()), "").unwrap());
    let checkpoints = Checkpoints::in_store(objects);
    let samples = [Sample::new("a", DataType::F32, &[5, 1 << 20], 1)];
    let mut saver = checkpoints
        .saver(Place { rank: 0, world_size: 1 }, muster_checkpoint::SaverOptions::default())
        .unwrap();
    let mut shard = Shard::new();
    shard.add_whole(&samples[0].tensor, &samples[0].bytes).unwrap();
    let receipt = saver.begin(1, &shard).unwrap().wait(PATIENCE).unwrap();
    let checkpoint = checkpoints.commit(&[receipt], json!(null)).unwrap();
    checkpoint.verify().unwrap();
    let range = 1_000_000..3_000_001;
    assert!(checkpoint.read("a", range.clone()).unwrap() == samples[0].part(&range));
}

#[test]
fn a_checkpoint_is_the_same_in_every_store() {
    let folder = tempfile::tempdir().unwrap();
    let samples = sample(1);
    let stores: [Arc<dyn Store>; 2] = [
        Arc::new(ObjectFolder::new(Arc::new(InMemory::new()), "x").unwrap()),
        muster_checkpoint::store::open(&format!("file://{}", folder.path().display())).unwrap(),
    ];
    let checksums = stores.map(|store| {
        let checkpoints = Checkpoints::in_store(store);
        let held = evenly(&samples, 1);
        save_all(&checkpoints, 1, &samples, &held, json!(null)).verify().unwrap();
        let receipt =
            crate::samples::save(&checkpoints, 2, &samples, &held[0], Place { rank: 0, world_size: 1 });
        (receipt.bytes(), receipt.checksum())
    });
    assert_eq!(checksums[0], checksums[1]);
}
