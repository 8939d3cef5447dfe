//! Keeping the ranks in step: the same parameters at the start, averaged gradients after every batch, and the
//! same parameters at the end.

use std::path::PathBuf;
use std::time::Duration;

use muster_collectives::{Communicator, NetworkOptions, Options, Reduction, RegisteredBuffer};

use crate::arguments::Arguments;
use crate::backend::BatchOutcome;
use crate::error::Error;
use crate::world::{Meeting, World};

/// Elements of one gradient bucket: 4 MiB, of the size at which an all-reduce runs at the memory's speed.
const BUCKET: usize = 1 << 20;

/// Values that travel behind the gradients: loss, share of correct samples, wish to stop.
const EXTRAS: usize = 3;

/// The ranks of a job as one of them sees it.
#[derive(Debug)]
pub(crate) struct DataParallel {
    communicator: Communicator,
    buckets: Vec<RegisteredBuffer<f32>>,
    gradient_count: usize,
}

/// What all ranks know after a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepOutcome {
    /// Loss averaged over the ranks.
    pub(crate) loss: f32,
    /// Share of correct samples over all ranks.
    pub(crate) accuracy: f32,
    /// Some rank was asked to stop.
    pub(crate) stop: bool,
}

impl DataParallel {
    /// Brings the ranks together.
    pub(crate) fn join(world: &World, arguments: &Arguments, gradient_count: usize) -> Result<Self, Error> {
        let elements = gradient_count + EXTRAS;
        let (directory, network) = match &world.meeting {
            Meeting::Directory(directory) => (directory.clone(), None),
            // Ranks in one container share its temporary directory, and so memory.
            Meeting::Address(address) => (std::env::temp_dir(), Some(NetworkOptions::new(address))),
            Meeting::Alone => (PathBuf::from("."), None),
        };
        let mut options = Options::new(directory, world.group.clone(), world.rank, world.size);
        options.network = network;
        options.host.clone_from(&world.host);
        options.deadline = arguments.deadline;
        options.join_deadline = arguments.join_deadline;
        options.arena_bytes = elements * size_of::<f32>() + (elements.div_ceil(BUCKET) << 12);
        let failed = |source| Error::Collective { rank: world.rank, source };
        let communicator = Communicator::connect(&options).map_err(failed)?;
        let sizes = (0..elements).step_by(BUCKET).map(|start| BUCKET.min(elements - start));
        let buckets =
            sizes.map(|size| communicator.allocate(size)).collect::<Result<_, _>>().map_err(failed)?;
        Ok(Self { communicator, buckets, gradient_count })
    }

    pub(crate) fn rank(&self) -> usize {
        self.communicator.rank()
    }

    pub(crate) fn world_size(&self) -> usize {
        self.communicator.world_size()
    }

    /// Time spent in collectives so far, waiting for slower ranks included.
    pub(crate) fn communication_time(&self) -> Duration {
        self.communicator.traffic().time
    }

    /// Gives every rank the parameters of rank 0.
    pub(crate) fn broadcast(&mut self, parameters: &mut [f32]) -> Result<(), Error> {
        let result = self.communicator.broadcast(parameters, 0);
        self.checked(result)
    }

    /// Averages gradients, loss and accuracy over the ranks, in place.
    pub(crate) fn average(
        &mut self,
        gradients: &mut [f32],
        outcome: BatchOutcome,
        samples: usize,
        stop: bool,
    ) -> Result<StepOutcome, Error> {
        debug_assert_eq!(gradients.len(), self.gradient_count);
        let extras = [outcome.loss, outcome.correct as f32 / samples as f32, f32::from(u8::from(stop))];
        let mut values = gradients.iter().chain(&extras).copied();
        for bucket in &mut self.buckets {
            // The iterator holds exactly as many values as the buckets have places.
            bucket.iter_mut().zip(&mut values).for_each(|(place, value)| *place = value);
            let result = self.communicator.all_reduce(bucket, Reduction::Average);
            result.map_err(|source| Error::Collective { rank: self.communicator.rank(), source })?;
        }
        let mut values = self.buckets.iter().flat_map(|bucket| bucket.iter().copied());
        gradients.iter_mut().zip(&mut values).for_each(|(gradient, value)| *gradient = value);
        let mut next = || values.next().unwrap_or(f32::NAN);
        Ok(StepOutcome { loss: next(), accuracy: next(), stop: next() > 0.0 })
    }

    /// Adds a count over the ranks.
    pub(crate) fn sum(&mut self, count: usize) -> Result<usize, Error> {
        let mut counts = [count as i64];
        let result = self.communicator.all_reduce_staged(&mut counts, Reduction::Sum);
        self.checked(result)?;
        Ok(counts[0] as usize)
    }

    /// The first rank that holds another value than rank 0.
    pub(crate) fn first_that_differs(&mut self, value: u64) -> Result<Option<usize>, Error> {
        let mut values = vec![0_i64; self.world_size()];
        let result = self.communicator.all_gather(&[value.cast_signed()], &mut values);
        self.checked(result)?;
        Ok(values.iter().position(|other| *other != values[0]))
    }

    fn checked(&self, result: Result<(), muster_collectives::Error>) -> Result<(), Error> {
        result.map_err(|source| Error::Collective { rank: self.rank(), source })
    }
}

/// A checksum of values by their bits (FNV-1a over 64-bit words).
pub(crate) fn checksum(words: impl Iterator<Item = u64>) -> u64 {
    words.fold(0xcbf2_9ce4_8422_2325, |hash, word| {
        (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
    })
}

/// The words of a slice for [`checksum`].
pub(crate) fn bits(values: &[f32]) -> impl Iterator<Item = u64> {
    values.iter().map(|value| u64::from(value.to_bits()))
}
