//! Saving one rank's shard while training goes on.

pub(crate) mod layout;
mod outcome;
mod worker;

use std::collections::TryReserveError;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use self::layout::Layout;
use self::outcome::{Outcome, StillRunning};
use self::worker::{Job, Staging, Worker};
use crate::checksum::ChunkSize;
use crate::header::EncodeError;
use crate::receipt::ShardReceipt;
use crate::store::{self, Store};
use crate::tensor::Shard;

/// Why a shard could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The store refused it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The background thread ended before it had written the shard.
    #[error("the thread that writes checkpoints ended")]
    Ended,
}

/// Why a save could not begin or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The save failed.
    #[error("saving step {step} failed: {failure}")]
    Failed {
        /// The step.
        step: u64,
        /// Why.
        failure: Arc<Failure>,
    },
    /// A save before this one failed, and nobody was told yet. This one did not begin; the next will.
    #[error("saving step {step} did not begin, because that of step {earlier} failed: {failure}")]
    EarlierFailed {
        /// The step that was to be saved.
        step: u64,
        /// The step whose save failed.
        earlier: u64,
        /// Why.
        failure: Arc<Failure>,
    },
    /// The save before this one is still running.
    #[error("saving step {step} did not begin, because that of step {earlier} is still running")]
    Busy {
        /// The step that was to be saved.
        step: u64,
        /// The step that is being saved.
        earlier: u64,
    },
    /// The deadline passed. The save goes on, and can be waited for again.
    #[error("step {step} was not saved within {patience:?}")]
    Deadline {
        /// The step.
        step: u64,
        /// How long was waited.
        patience: Duration,
    },
    /// There is no memory for the copy.
    #[error("there is no memory for a copy of {bytes} bytes: {source}")]
    Memory {
        /// Bytes of the copy.
        bytes: usize,
        /// What the allocator says.
        source: TryReserveError,
    },
    /// What is to be saved makes no file.
    #[error("the shard cannot be saved: {0}")]
    Layout(#[from] EncodeError),
    /// The machine gave no thread.
    #[error("cannot start the thread that writes checkpoints: {0}")]
    Thread(std::io::Error),
}

/// Which of how many ranks this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From 0.
    pub rank: usize,
    /// How many ranks save together.
    pub world_size: usize,
}

/// What a save does while the one before it is still being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenBusy {
    /// It waits so long, then is refused.
    Wait(Duration),
    /// It is refused at once.
    Refuse,
}

/// Settings of a [`Saver`].
#[derive(Debug, Clone, Copy)]
pub struct SaverOptions {
    /// What a second save does while one runs.
    pub when_busy: WhenBusy,
    /// How many bytes share a checksum.
    pub chunk_size: ChunkSize,
}

impl Default for SaverOptions {
    /// Waits ten minutes for the save before it; chunks of 4 MiB.
    fn default() -> Self {
        Self { when_busy: WhenBusy::Wait(Duration::from_mins(10)), chunk_size: ChunkSize::default() }
    }
}

/// Saves the shards of one rank, one after the other, in a thread of its own.
///
/// It holds one copy of the shard, made when a save begins; that copy is all that training waits for, and from the
/// second save on it goes to memory that is there already.
#[derive(Debug)]
pub struct Saver {
    jobs: SyncSender<Job>,
    staging: Option<Staging>,
    when_busy: WhenBusy,
    last: Option<(u64, Arc<Outcome>)>,
}

impl Saver {
    pub(crate) fn start(store: Arc<dyn Store>, place: Place, options: SaverOptions) -> Result<Self, Error> {
        let (jobs, received) = sync_channel(1);
        let worker = Worker { store, place, chunk_size: options.chunk_size };
        thread::Builder::new()
            .name(format!("checkpoint-{}", place.rank))
            .spawn(move || worker.run(&received))
            .map_err(Error::Thread)?;
        Ok(Self { jobs, staging: Some(Staging::default()), when_busy: options.when_busy, last: None })
    }

    /// Gets the memory for shards of that form, so that the first save stalls no longer than the others. To be called
    /// before training begins; while a save runs it has nothing to do.
    pub fn prepare(&mut self, shard: &Shard<'_>) -> Result<(), Error> {
        match &mut self.staging {
            Some(staging) => fill(shard, staging).map(drop),
            None => Ok(()),
        }
    }

    /// Copies the shard and begins to write it.
    ///
    /// A save of a step that was committed before replaces it when it is committed in turn, not earlier.
    pub fn begin(&mut self, step: u64, shard: &Shard<'_>) -> Result<Save, Error> {
        let mut staging = self.take_staging(step)?;
        let prepared = self.refuse_after_failure(step).and_then(|()| fill(shard, &mut staging));
        let layout = match prepared {
            Ok(layout) => layout,
            Err(error) => {
                self.staging = Some(staging);
                return Err(error);
            }
        };
        let outcome = Arc::new(Outcome::default());
        self.last = Some((step, Arc::clone(&outcome)));
        // When the thread has ended, dropping the job says so.
        drop(self.jobs.send(Job { step, staging, layout, outcome: Arc::clone(&outcome) }));
        Ok(Save { step, outcome })
    }

    /// Waits for the save that runs, if any, and for the failure of one that nobody was told of.
    pub fn finish(self, patience: Duration) -> Result<(), Error> {
        let Some((step, outcome)) = self.last else { return Ok(()) };
        match outcome.untold_failure(patience) {
            Ok(None) => Ok(()),
            Ok(Some(failure)) => Err(Error::Failed { step, failure }),
            Err(StillRunning) => Err(Error::Deadline { step, patience }),
        }
    }

    fn take_staging(&mut self, step: u64) -> Result<Staging, Error> {
        if let Some(staging) = self.staging.take() {
            return Ok(staging);
        }
        let Some((earlier, outcome)) = &self.last else { return Ok(Staging::default()) };
        let patience = match self.when_busy {
            WhenBusy::Refuse => Duration::ZERO,
            WhenBusy::Wait(patience) => patience,
        };
        outcome.take_staging(patience).map_err(|StillRunning| Error::Busy { step, earlier: *earlier })
    }

    fn refuse_after_failure(&self, step: u64) -> Result<(), Error> {
        let Some((earlier, outcome)) = &self.last else { return Ok(()) };
        // It has ended: its memory is here.
        match outcome.untold_failure(Duration::ZERO) {
            Ok(Some(failure)) => Err(Error::EarlierFailed { step, earlier: *earlier, failure }),
            Ok(None) | Err(StillRunning) => Ok(()),
        }
    }
}

fn fill(shard: &Shard<'_>, staging: &mut Staging) -> Result<Arc<Layout>, Error> {
    let layout = match staging.layout.take().filter(|layout| layout.fits(shard)) {
        Some(layout) => layout,
        None => Arc::new(Layout::of(shard)?),
    };
    let bytes = layout.bytes();
    staging.image.clear();
    staging.image.try_reserve_exact(bytes).map_err(|source| Error::Memory { bytes, source })?;
    layout.copy(shard, &mut staging.image);
    staging.layout = Some(Arc::clone(&layout));
    Ok(layout)
}

/// A save that runs or has ended. It goes on when this is dropped; its failure is then told to the next save.
#[derive(Debug)]
#[must_use = "the receipt is needed to commit the checkpoint"]
pub struct Save {
    step: u64,
    outcome: Arc<Outcome>,
}

impl Save {
    /// The step that is saved.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The receipt when the shard is written; `None` while it is not.
    pub fn poll(&self) -> Result<Option<ShardReceipt>, Error> {
        self.outcome.wait(Duration::ZERO).map(|result| self.explain(result)).transpose()
    }

    /// Waits for the receipt. After the deadline it can be waited for again.
    pub fn wait(&self, patience: Duration) -> Result<ShardReceipt, Error> {
        match self.outcome.wait(patience) {
            Some(result) => self.explain(result),
            None => Err(Error::Deadline { step: self.step, patience }),
        }
    }

    fn explain(&self, result: Result<ShardReceipt, Arc<Failure>>) -> Result<ShardReceipt, Error> {
        result.map_err(|failure| Error::Failed { step: self.step, failure })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::FolderStore;
    use crate::tensor::{DataType, Tensor};

    #[test]
    fn memory_is_used_again() {
        let patience = Duration::from_mins(1);
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(FolderStore::open(folder.path()).unwrap());
        let place = Place { rank: 0, world_size: 1 };
        let mut saver = Saver::start(store, place, SaverOptions::default()).unwrap();
        let tensors = [
            Tensor::new("a", DataType::U8, [100_000]).unwrap(),
            Tensor::new("b", DataType::F32, [1000]).unwrap(),
        ];
        let mut places = Vec::new();
        for step in 0..4 {
            let values = [vec![step as u8; 100_000], vec![step as u8; 4000]];
            let mut shard = Shard::new();
            for (tensor, values) in tensors.iter().zip(&values) {
                shard.add_whole(tensor, values).unwrap();
            }
            saver.begin(step, &shard).unwrap().wait(patience).unwrap();
            let staging = saver.take_staging(step).unwrap();
            let layout = staging.layout.as_ref().map(Arc::as_ptr);
            places.push((staging.image.as_ptr(), staging.image.capacity(), layout));
            saver.staging = Some(staging);
        }
        assert!(places.windows(2).all(|pair| pair[0] == pair[1]), "{places:?}");
    }
}
