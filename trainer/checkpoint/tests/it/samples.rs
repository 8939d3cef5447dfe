//! Tensors with values, and ranks that save them.

use std::ops::Range;
use std::time::Duration;

use muster_checkpoint::{
    Checkpoint, Checkpoints, ChunkSize, DataType, Place, SaverOptions, Shard, ShardReceipt, Tensor, WhenBusy,
};
use serde_json::Value;

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) const DATA_TYPES: [DataType; 9] = [
    DataType::F64,
    DataType::F32,
    DataType::F16,
    DataType::BF16,
    DataType::I64,
    DataType::I32,
    DataType::I8,
    DataType::U8,
    DataType::Bool,
];

/// Short chunks, so that small tensors have many.
pub(crate) fn options() -> SaverOptions {
    SaverOptions { when_busy: WhenBusy::Wait(PATIENCE), chunk_size: ChunkSize::new(1024).unwrap() }
}

/// Bytes that differ from place to place and from seed to seed.
pub(crate) fn values(bytes: u64, seed: u64) -> Vec<u8> {
    (0..bytes).map(|at| ((at + 1).wrapping_mul(seed.wrapping_mul(2) + 0x9e37_79b9) >> 13) as u8).collect()
}

/// A tensor and all its bytes.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) tensor: Tensor,
    pub(crate) bytes: Vec<u8>,
}

impl Sample {
    pub(crate) fn new(name: &str, data_type: DataType, shape: &[u64], seed: u64) -> Self {
        let tensor = Tensor::new(name, data_type, shape).unwrap();
        let bytes = values(tensor.bytes(), seed);
        Self { tensor, bytes }
    }

    /// The bytes of elements.
    pub(crate) fn part(&self, range: &Range<u64>) -> &[u8] {
        let size = self.tensor.data_type().size();
        &self.bytes[(range.start * size) as usize..(range.end * size) as usize]
    }
}

/// Elements of a sample, by its index, that one rank holds.
pub(crate) type Held = Vec<(usize, Range<u64>)>;

/// Each rank holds an even part of every tensor.
pub(crate) fn evenly(samples: &[Sample], world_size: usize) -> Vec<Held> {
    let part = |sample: &Sample, rank: usize| {
        let cut = |rank: usize| sample.tensor.elements() * rank as u64 / world_size as u64;
        cut(rank)..cut(rank + 1)
    };
    let held = |rank| samples.iter().map(|sample| part(sample, rank)).enumerate().collect();
    (0..world_size).map(held).collect()
}

/// Saves one rank's part.
pub(crate) fn save(
    checkpoints: &Checkpoints,
    step: u64,
    samples: &[Sample],
    held: &Held,
    place: Place,
) -> ShardReceipt {
    let mut saver = checkpoints.saver(place, options()).unwrap();
    let mut shard = Shard::new();
    for (index, range) in held {
        shard.add(&samples[*index].tensor, range.clone(), samples[*index].part(range)).unwrap();
    }
    saver.begin(step, &shard).unwrap().wait(PATIENCE).unwrap()
}

/// Saves a step with all its ranks, each of which sends its receipt as text, and commits it.
pub(crate) fn save_all(
    checkpoints: &Checkpoints,
    step: u64,
    samples: &[Sample],
    held: &[Held],
    state: Value,
) -> Checkpoint {
    let world_size = held.len();
    let receipts: Vec<ShardReceipt> = held
        .iter()
        .enumerate()
        .map(|(rank, held)| save(checkpoints, step, samples, held, Place { rank, world_size }))
        .map(|receipt| serde_json::to_string(&receipt).unwrap())
        .map(|text| serde_json::from_str(&text).unwrap())
        .collect();
    checkpoints.commit(&receipts, state).unwrap()
}
