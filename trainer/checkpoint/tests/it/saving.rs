//! Saves that overlap, fail, or do not fit together.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use muster_checkpoint::store::{Entry, Error, FolderStore, Store, Upload};
use muster_checkpoint::{Checkpoints, DataType, Place, SaveError, SaverOptions, Shard, WhenBusy};
use parking_lot::Mutex;
use serde_json::json;

use crate::samples::{Held, PATIENCE, Sample, evenly, options, save, save_all};

const ALONE: Place = Place { rank: 0, world_size: 1 };

/// A folder in which each file waits for a word before it begins: true lets it pass, false refuses it.
struct Gated {
    inner: FolderStore,
    words: Mutex<Receiver<bool>>,
}

impl fmt::Debug for Gated {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("gated")
    }
}

impl Gated {
    fn new(folder: &tempfile::TempDir) -> (Arc<Self>, Sender<bool>) {
        let (say, words) = channel();
        let inner = FolderStore::open(folder.path()).unwrap();
        (Arc::new(Self { inner, words: Mutex::new(words) }), say)
    }
}

impl Store for Gated {
    fn list(&self, folder: &str) -> Result<Vec<Entry>, Error> {
        self.inner.list(folder)
    }

    fn size(&self, name: &str) -> Result<u64, Error> {
        self.inner.size(name)
    }

    fn read(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<(), Error> {
        self.inner.read(name, offset, into)
    }

    fn create(&self, name: &str, bytes: u64) -> Result<Box<dyn Upload + '_>, Error> {
        if self.words.lock().recv_timeout(PATIENCE).unwrap() {
            return self.inner.create(name, bytes);
        }
        let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
        Err(Error::Failed { action: "create", name: name.to_owned(), store: "gated".into(), source })
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        self.inner.remove(name)
    }
}

#[test]
fn a_second_save_is_refused_or_waits_and_values_are_those_of_the_beginning() {
    for when_busy in [WhenBusy::Refuse, WhenBusy::Wait(Duration::from_millis(1))] {
        let folder = tempfile::tempdir().unwrap();
        let (store, say) = Gated::new(&folder);
        let checkpoints = Checkpoints::in_store(store);
        let mut saver = checkpoints.saver(ALONE, SaverOptions { when_busy, ..options() }).unwrap();
        let mut sample = Sample::new("a", DataType::F32, &[5000], 1);
        let expected = sample.bytes.clone();

        let mut shard = Shard::new();
        shard.add_whole(&sample.tensor, &sample.bytes).unwrap();
        let first = saver.begin(1, &shard).unwrap();
        // Training goes on, and changes the values.
        sample.bytes.fill(0);
        assert!(first.poll().unwrap().is_none());
        assert!(matches!(first.wait(Duration::ZERO), Err(SaveError::Deadline { step: 1, .. })));
        let mut shard = Shard::new();
        shard.add_whole(&sample.tensor, &sample.bytes).unwrap();
        let refused = saver.begin(2, &shard).unwrap_err();
        assert!(matches!(refused, SaveError::Busy { step: 2, earlier: 1 }), "{refused}");

        say.send(true).unwrap();
        let receipt = first.wait(PATIENCE).unwrap();
        assert_eq!(first.poll().unwrap().as_ref(), Some(&receipt));
        // The refused one left nothing behind, and its turn is now. The commit's manifest passes too.
        say.send(true).unwrap();
        let checkpoint = checkpoints.commit(&[receipt], json!(null)).unwrap();
        assert!(checkpoint.read("a", 0..5000).unwrap() == expected);
        say.send(true).unwrap();
        let second = saver.begin(2, &shard).unwrap();
        assert_eq!(second.wait(PATIENCE).unwrap().step(), 2);
        saver.finish(PATIENCE).unwrap();
    }
}

#[test]
fn a_second_save_that_may_wait_is_never_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path().to_str().unwrap()).unwrap();
    let mut saver = checkpoints.saver(ALONE, options()).unwrap();
    let samples: Vec<Sample> = (0..10).map(|step| Sample::new("a", DataType::F64, &[20_000], step)).collect();
    let saves: Vec<_> = (0..10)
        .map(|step| {
            let mut shard = Shard::new();
            let sample = &samples[step as usize];
            shard.add_whole(&sample.tensor, &sample.bytes).unwrap();
            saver.begin(step, &shard).unwrap()
        })
        .collect();
    for (save, sample) in saves.iter().zip(&samples) {
        let receipt = save.wait(PATIENCE).unwrap();
        let checkpoint = checkpoints.commit(&[receipt], json!(null)).unwrap();
        assert!(checkpoint.read("a", 0..20_000).unwrap() == sample.bytes);
    }
    assert_eq!(checkpoints.steps().unwrap(), (0..10).rev().collect::<Vec<_>>());
}

#[test]
fn a_failure_is_told_to_who_waits_else_to_the_next_save_else_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (store, say) = Gated::new(&folder);
    let checkpoints = Checkpoints::in_store(store);
    let mut saver = checkpoints.saver(ALONE, options()).unwrap();
    let sample = Sample::new("a", DataType::U8, &[10], 1);
    let mut shard = Shard::new();
    shard.add_whole(&sample.tensor, &sample.bytes).unwrap();

    // To who waits; the next save begins then.
    say.send(false).unwrap();
    let message = saver.begin(1, &shard).unwrap().wait(PATIENCE).unwrap_err().to_string();
    assert!(message.starts_with("saving step 1 failed: cannot create step-0"), "{message}");
    // To the next save when nobody waits; the one after that begins.
    say.send(false).unwrap();
    drop(saver.begin(2, &shard).unwrap());
    let message = saver.begin(3, &shard).unwrap_err().to_string();
    assert!(message.starts_with("saving step 3 did not begin, because that of step 2 failed:"), "{message}");
    say.send(true).unwrap();
    saver.begin(3, &shard).unwrap().wait(PATIENCE).unwrap();
    // At the end.
    say.send(false).unwrap();
    drop(saver.begin(4, &shard).unwrap());
    assert!(matches!(saver.finish(PATIENCE), Err(SaveError::Failed { step: 4, .. })));
}

#[test]
fn a_store_that_panics_is_told_and_nobody_waits_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let (store, say) = Gated::new(&folder);
    // Without anyone to say a word, the gate panics in the thread that writes.
    drop(say);
    let mut saver = Checkpoints::in_store(store).saver(ALONE, options()).unwrap();
    let sample = Sample::new("a", DataType::U8, &[10], 1);
    let mut shard = Shard::new();
    shard.add_whole(&sample.tensor, &sample.bytes).unwrap();
    for step in 1..4 {
        let message = saver.begin(step, &shard).unwrap().wait(PATIENCE).unwrap_err().to_string();
        assert_eq!(message, format!("saving step {step} failed: the thread that writes checkpoints ended"));
    }
    saver.finish(PATIENCE).unwrap();
}

#[test]
fn only_whole_checkpoints_are_committed() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path().to_str().unwrap()).unwrap();
    let samples = [Sample::new("a", DataType::F32, &[100], 1)];
    let held = evenly(&samples, 3);
    let place = |rank| Place { rank, world_size: 3 };
    let receipts: Vec<_> =
        (0..3).map(|rank| save(&checkpoints, 1, &samples, &held[rank], place(rank))).collect();
    let refused = |receipts: &[_]| checkpoints.commit(receipts, json!(null)).unwrap_err().to_string();
    let again = |rank, held: &Held| save(&checkpoints, 1, &samples, held, place(rank));

    assert!(refused(&[]).ends_with("there are no receipts to commit"));
    assert!(refused(&receipts[..2]).contains("0 receipts of rank 2 of 3"));
    assert!(refused(&receipts[1..]).contains("0 receipts of rank 0 of 3"));
    let twice = [receipts[0].clone(), receipts[1].clone(), receipts[1].clone()];
    assert!(refused(&twice).contains("2 receipts of rank 1 of 3"), "{}", refused(&twice));
    let other_step = save(&checkpoints, 2, &samples, &held[2], place(2));
    assert!(
        refused(&[receipts[0].clone(), receipts[1].clone(), other_step]).contains("for step 2 of 3 ranks")
    );
    let short = again(1, &vec![(0, 33..50)]);
    let message = refused(&[receipts[0].clone(), short, receipts[2].clone()]);
    assert!(message.ends_with("no rank saved elements 50..66 of tensor a"), "{message}");
    let long = again(1, &vec![(0, 30..66)]);
    let message = refused(&[receipts[0].clone(), long, receipts[2].clone()]);
    assert!(message.contains("elements 30..33 of tensor a were saved more than once"), "{message}");
    let other = [Sample::new("a", DataType::I32, &[100], 1)];
    let other = save(&checkpoints, 1, &other, &held[1], place(1));
    let message = refused(&[receipts[0].clone(), other, receipts[2].clone()]);
    assert!(message.contains("rank 1 saved another tensor by the name of a than rank 0"), "{message}");

    let gone = folder.path().join("step-00000000000000000001").join(receipts[2].file());
    fs_err::rename(&gone, gone.with_extension("away")).unwrap();
    assert!(refused(&receipts).contains(receipts[2].file()));
    fs_err::rename(gone.with_extension("away"), &gone).unwrap();
    assert!(checkpoints.steps().unwrap().is_empty());

    checkpoints.commit(&receipts, json!(null)).unwrap().verify().unwrap();
    // What was saved in vain is garbage; the checkpoint and a stranger's file are not.
    fs_err::write(folder.path().join("step-00000000000000000001/notes.txt"), "mine").unwrap();
    assert_eq!(checkpoints.clean().unwrap().len(), 4);
    checkpoints.latest().unwrap().unwrap().verify().unwrap();
    assert!(folder.path().join("step-00000000000000000001/notes.txt").is_file());
}

#[test]
fn what_is_kept_is_what_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path().to_str().unwrap()).unwrap();
    let samples = [Sample::new("a", DataType::F32, &[100], 1)];
    for step in [10, 20, 25, 30, 35] {
        save_all(&checkpoints, step, &samples, &evenly(&samples, 2), json!(null));
    }
    let retention = muster_checkpoint::Retention {
        newest: std::num::NonZeroUsize::new(1).unwrap(),
        every: std::num::NonZeroU64::new(20),
    };
    assert_eq!(checkpoints.retain(&retention).unwrap(), [10, 25, 30]);
    assert_eq!(checkpoints.steps().unwrap(), [35, 20]);
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 2);
    checkpoints.checkpoint(20).unwrap().verify().unwrap();
}
