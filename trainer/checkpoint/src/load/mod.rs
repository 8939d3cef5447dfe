//! Reading a checkpoint: any ranges of its tensors, by any number of ranks.

mod plan;

use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;

use self::plan::{Segment, plan};
use crate::checksum::{self, Checksum};
use crate::manifest::Manifest;
use crate::names;
use crate::receipt::SavedShard;
use crate::store::{self, Store};
use crate::tensor::{self, Tensor};

/// About how many bytes are read at a time: enough for an object store to be fast, little beside a shard.
const READ_AT_ONCE: u64 = 16 << 20;

/// What is wrong with a part of a shard's file.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The file is not there.
    #[error("the file is missing")]
    Missing,
    /// The file is too short, or longer than it was.
    #[error("the file has not the length that it was saved with")]
    Length,
    /// The bytes are not those that were saved.
    #[error("the bytes are not those that were saved")]
    Changed,
    /// The store could not read it.
    #[error(transparent)]
    Unreadable(store::Error),
}

/// Why something could not be read from a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It has no such tensor.
    #[error("the checkpoint of step {step} has no tensor {tensor}")]
    NoTensor {
        /// The step.
        step: u64,
        /// What was asked for.
        tensor: String,
    },
    /// The range is not in the tensor, or the bytes to fill are not as many.
    #[error(transparent)]
    Request(#[from] tensor::Error),
    /// A shard's file cannot be used. An earlier checkpoint may be whole:
    /// [`latest_intact`](crate::Checkpoints::latest_intact) finds it.
    #[error(
        "step {step}: chunk {chunk} of {file}, with {tensor}: {damage}; an earlier checkpoint may be whole"
    )]
    Damaged {
        /// The step.
        step: u64,
        /// The shard's file.
        file: String,
        /// The chunk, from 0.
        chunk: u64,
        /// `tensor NAME` for the first tensor of which the chunk has bytes, else what it has.
        tensor: String,
        /// What is wrong.
        damage: Box<Damage>,
    },
}

/// Elements `range` of a tensor's flat form, and where their bytes (little-endian) go.
#[derive(Debug)]
pub struct Request<'a> {
    /// The tensor's name.
    pub tensor: &'a str,
    /// The elements.
    pub range: Range<u64>,
    /// As many bytes as the elements have.
    pub bytes: &'a mut [u8],
}

/// A committed checkpoint.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    store: Arc<dyn Store>,
    manifest: Arc<Manifest>,
}

impl Checkpoint {
    pub(crate) fn new(store: Arc<dyn Store>, manifest: Manifest) -> Self {
        Self { store, manifest: Arc::new(manifest) }
    }

    /// The step that was saved.
    pub fn step(&self) -> u64 {
        self.manifest.content().step
    }

    /// How many ranks saved it; any number can load it.
    pub fn world_size(&self) -> usize {
        self.manifest.content().world_size
    }

    /// The training state that was committed with it.
    pub fn state(&self) -> &Value {
        &self.manifest.content().state
    }

    /// All tensors, in the order in which the ranks added them.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.manifest.content().tensors.iter().map(|saved| &saved.tensor)
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.manifest.find(name).map(|saved| &saved.tensor)
    }

    /// Elements `range` of a tensor's flat form. For many ranges, [`load`](Self::load) reads each chunk once.
    pub fn read(&self, tensor: &str, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let about = self.find(tensor)?;
        let count = range.end.saturating_sub(range.start).min(about.elements());
        let mut bytes = vec![0; (count * about.data_type().size()) as usize];
        self.load(&mut [Request { tensor, range, bytes: &mut bytes }])?;
        Ok(bytes)
    }

    /// Fills all requests. Only chunks with bytes that were asked for are read, each once, and each is checked.
    pub fn load(&self, requests: &mut [Request<'_>]) -> Result<(), Error> {
        for request in &*requests {
            self.find(request.tensor)?.check(&request.range, request.bytes.len())?;
        }
        let segments = plan(&self.manifest, requests);
        let mut buffer = Vec::new();
        for of_shard in segments.chunk_by(|left, right| left.shard == right.shard) {
            self.load_from_shard(of_shard, requests, &mut buffer)?;
        }
        Ok(())
    }

    /// Reads everything, and checks every byte.
    pub fn verify(&self) -> Result<(), Error> {
        let mut buffer = Vec::new();
        for (index, shard) in self.manifest.content().shards.iter().enumerate() {
            match self.store.size(&self.name(shard)) {
                Ok(bytes) if bytes == shard.bytes => {}
                Ok(_) => return Err(self.damaged(index, 0, Damage::Length)),
                Err(error) => return Err(self.damaged(index, 0, error.into())),
            }
            let at_once = Self::chunks_at_once(shard);
            let chunks = shard.chunks.len() as u64;
            let mut next = 0;
            while next < chunks {
                let end = chunks.min(next + at_once);
                self.read_chunks(index, next..end, &mut buffer)?;
                next = end;
            }
            // The sums of several chunks were compared with that of the file when the manifest was read.
            if shard.chunks.len() == 1 && Checksum::of(&buffer) != shard.checksum {
                return Err(self.damaged(index, 0, Damage::Changed));
            }
        }
        Ok(())
    }

    fn find(&self, tensor: &str) -> Result<&Tensor, Error> {
        let none = || Error::NoTensor { step: self.step(), tensor: tensor.to_owned() };
        self.tensor(tensor).ok_or_else(none)
    }

    /// Serves segments of one shard, which come chunk by chunk.
    fn load_from_shard(
        &self,
        segments: &[Segment],
        requests: &mut [Request<'_>],
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let Some(Segment { shard: index, .. }) = segments.first() else { return Ok(()) };
        let shard = &self.manifest.content().shards[*index];
        let at_once = Self::chunks_at_once(shard);
        let mut rest = segments;
        while let Some(first) = rest.first() {
            // The chunks that follow each other from here on, as far as they are read at once.
            let mut last = first.chunk;
            let count = rest.iter().take_while(|segment| {
                let follows = segment.chunk <= last + 1 && segment.chunk < first.chunk + at_once;
                last = if follows { segment.chunk } else { last };
                follows
            });
            let (now, later) = rest.split_at(count.count());
            rest = later;
            self.read_chunks(*index, first.chunk..last + 1, buffer)?;
            let start = first.chunk * shard.chunk_bytes.bytes();
            for segment in now {
                let from = (segment.offset - start) as usize;
                requests[segment.request].bytes[segment.into..segment.into + segment.length]
                    .copy_from_slice(&buffer[from..from + segment.length]);
            }
        }
        Ok(())
    }

    /// Reads chunks of a shard and checks them.
    fn read_chunks(&self, index: usize, chunks: Range<u64>, buffer: &mut Vec<u8>) -> Result<(), Error> {
        let shard = &self.manifest.content().shards[index];
        let size = shard.chunk_bytes.bytes();
        let start = chunks.start * size;
        let end = shard.bytes.min(chunks.end * size);
        buffer.resize((end - start) as usize, 0);
        let read = self.store.read(&self.name(shard), start, buffer);
        read.map_err(|error| self.damaged(index, chunks.start, error.into()))?;
        for (chunk, bytes) in chunks.zip(buffer.chunks(size as usize)) {
            let found = checksum::chunk_checksum(shard.chunk_bytes, chunk, bytes);
            if found != shard.chunks[chunk as usize] {
                return Err(self.damaged(index, chunk, Damage::Changed));
            }
        }
        Ok(())
    }

    fn chunks_at_once(shard: &SavedShard) -> u64 {
        (READ_AT_ONCE / shard.chunk_bytes.bytes()).max(1)
    }

    fn name(&self, shard: &SavedShard) -> String {
        names::in_folder(self.step(), &shard.file)
    }

    fn damaged(&self, index: usize, chunk: u64, damage: Damage) -> Error {
        let shard = &self.manifest.content().shards[index];
        let start = chunk * shard.chunk_bytes.bytes();
        let tensor = match plan::first_tensor(&self.manifest, index, start..start + shard.chunk_bytes.bytes())
        {
            Some(tensor) => format!("tensor {}", tensor.name()),
            None => "the header".to_owned(),
        };
        Error::Damaged { step: self.step(), file: shard.file.clone(), chunk, tensor, damage: damage.into() }
    }
}

impl From<store::Error> for Damage {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::NotFound { .. } => Self::Missing,
            store::Error::TooShort { .. } => Self::Length,
            error => Self::Unreadable(error),
        }
    }
}
