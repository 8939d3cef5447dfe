use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use muster_store::{
    Durability, Event, EventKind, Handle, Log, LogError, MemoryLog, ObjectKey, Options, Record, SqliteLog,
    Store, Watch,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Nothing in these tests takes longer unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn pod(name: &str) -> ObjectKey {
    ObjectKey::new("core/pods", "default", name)
}

pub(crate) fn object(key: &ObjectKey, number: u64) -> Value {
    json!({"metadata": {"name": &*key.name, "namespace": &*key.namespace}, "spec": {"number": number}})
}

pub(crate) fn in_memory(options: Options) -> Handle {
    Store::open(options, Box::new(MemoryLog::new())).unwrap()
}

pub(crate) fn on_disk(folder: &tempfile::TempDir, options: Options) -> Handle {
    let log = SqliteLog::open(folder.path().join("api.db"), Durability::Process).unwrap();
    Store::open(options, Box::new(log)).unwrap()
}

/// The next event, at the latest by the deadline.
pub(crate) async fn next(watch: &mut Watch) -> Event {
    tokio::time::timeout(DEADLINE, watch.next()).await.expect("no event came").expect("the watch ended")
}

/// Kind, name and revision: what most tests compare.
pub(crate) fn summary(event: &Event) -> (EventKind, String, u64) {
    assert_eq!(event.revision, event.entry.revision());
    (event.kind, event.entry.key().name.to_string(), event.revision)
}

/// What the test wants of a log that it handed to the store.
#[derive(Default)]
pub(crate) struct Faults {
    /// Appends that fail from now on.
    pub(crate) failing_appends: usize,
    /// Whether a failing append has written its records all the same.
    pub(crate) written_all_the_same: bool,
    /// Truncations that fail from now on.
    pub(crate) failing_truncations: usize,
    /// Sizes of the batches that were appended.
    pub(crate) batches: Vec<usize>,
    /// Each append takes one message out of here before it starts.
    gate: Option<Receiver<()>>,
}

/// A log in memory that outlives the store and fails on demand.
#[derive(Clone)]
pub(crate) struct FaultyLog {
    records: Arc<Mutex<MemoryLog>>,
    pub(crate) faults: Arc<Mutex<Faults>>,
}

impl FaultyLog {
    pub(crate) fn new() -> Self {
        Self { records: Arc::new(Mutex::new(MemoryLog::retaining())), faults: Arc::default() }
    }

    /// From now on every append waits for one message, until the sender is dropped.
    pub(crate) fn gate(&self) -> Sender<()> {
        let (sender, receiver) = channel();
        self.faults.lock().gate = Some(receiver);
        sender
    }

    pub(crate) fn open(&self, options: Options) -> Handle {
        Store::open(options, Box::new(self.clone())).unwrap()
    }
}

impl Log for FaultyLog {
    fn load(&mut self, visit: &mut dyn FnMut(Record) -> Result<(), LogError>) -> Result<u64, LogError> {
        self.records.lock().load(visit)
    }

    fn append(&mut self, records: &[Record]) -> Result<(), LogError> {
        let gate = self.faults.lock().gate.take();
        if let Some(gate) = gate
            && gate.recv().is_ok()
        {
            self.faults.lock().gate = Some(gate);
        }
        let mut faults = self.faults.lock();
        faults.batches.push(records.len());
        if faults.failing_appends > 0 {
            faults.failing_appends -= 1;
            if faults.written_all_the_same {
                self.records.lock().append(records)?;
            }
            return Err(LogError::Other("no space left on device".into()));
        }
        self.records.lock().append(records)
    }

    fn truncate(&mut self, above: u64) -> Result<(), LogError> {
        let mut faults = self.faults.lock();
        if faults.failing_truncations > 0 {
            faults.failing_truncations -= 1;
            return Err(LogError::Other("still no space left on device".into()));
        }
        self.records.lock().truncate(above)
    }

    fn compact(&mut self, through: u64) -> Result<(), LogError> {
        self.records.lock().compact(through)
    }

    fn close(&mut self) -> Result<(), LogError> {
        Ok(())
    }
}
