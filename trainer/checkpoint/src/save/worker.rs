//! The background thread that writes shards.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::layout::Layout;
use super::outcome::Outcome;
use super::{Failure, Place};
use crate::checksum::{ChunkSize, Summer};
use crate::names;
use crate::receipt::{SavedShard, ShardReceipt};
use crate::store::{self, Store};

/// The copy of a shard. Its memory is kept from save to save.
#[derive(Debug, Default)]
pub(super) struct Staging {
    pub(super) image: Vec<u8>,
    pub(super) layout: Option<Arc<Layout>>,
}

/// A copy to write.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) step: u64,
    pub(super) staging: Staging,
    pub(super) layout: Arc<Layout>,
    pub(super) outcome: Arc<Outcome>,
}

impl Job {
    fn end(&mut self, result: Result<ShardReceipt, Failure>) {
        self.outcome.set(result, std::mem::take(&mut self.staging));
    }
}

impl Drop for Job {
    /// Whoever waits is told even when the thread does not get to the end.
    fn drop(&mut self) {
        self.end(Err(Failure::Ended));
    }
}

/// What the thread needs.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) store: Arc<dyn Store>,
    pub(super) place: Place,
    pub(super) chunk_size: ChunkSize,
}

impl Worker {
    /// Writes what comes until nothing can come any more.
    pub(super) fn run(self, jobs: &Receiver<Job>) {
        while let Ok(mut job) = jobs.recv() {
            let result = self.write(&job).map_err(Failure::Store);
            job.end(result);
        }
    }

    fn write(&self, job: &Job) -> Result<ShardReceipt, store::Error> {
        let Place { rank, world_size } = self.place;
        let image = &job.staging.image;
        let file = names::shard(rank, world_size, rand::random());
        let mut upload = self.store.create(&names::in_folder(job.step, &file), image.len() as u64)?;
        let mut summer = Summer::new(self.chunk_size);
        for chunk in image.chunks(self.chunk_size.bytes() as usize) {
            summer.add(chunk);
            upload.write(chunk)?;
        }
        upload.finish()?;
        let (checksum, chunks) = summer.finish();
        let bytes = image.len() as u64;
        let shard = SavedShard { file, bytes, checksum, chunk_bytes: self.chunk_size, chunks };
        let pieces = job.layout.pieces().to_vec();
        Ok(ShardReceipt { step: job.step, rank, world_size, shard, pieces })
    }
}
